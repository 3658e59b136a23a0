// SPDX-License-Identifier: Apache-2.0

/// What operators are shown.
extension BrokerMachine {
    /// Calls of one function with the same demands.
    package struct RouteView: Equatable, Sendable {
        package var function: String
        package var demands: Demands
        package var waiting: Int
        /// Workers that may run them.
        package var workers: Int
    }

    /// All routes that have calls or workers, by function and queue.
    package var routeViews: [RouteView] {
        self.routes.compactMap { $0 }
            .filter { $0.waitingCount > 0 || $0.callCount > 0 || $0.workerCount > 0 }
            .map { route in
                RouteView(
                    function: self.functions[route.function].name,
                    demands: route.demands,
                    waiting: route.waitingCount,
                    workers: route.workerCount
                )
            }
            .sorted { ($0.function, $0.demands.queue) < ($1.function, $1.demands.queue) }
    }
}
