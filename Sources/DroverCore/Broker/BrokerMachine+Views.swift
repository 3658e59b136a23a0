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
        self.routes.indices
            .filter { index in
                let route = self.routes[index]
                return route.isLive && (route.waitingCount > 0 || route.callCount > 0 || route.workerCount > 0)
            }
            .map { index in
                RouteView(
                    function: self.functions[self.routes[index].function].name,
                    demands: self.demandsOf[index],
                    waiting: self.routes[index].waitingCount,
                    workers: self.routes[index].workerCount
                )
            }
            .sorted { ($0.function, $0.demands.queue) < ($1.function, $1.demands.queue) }
    }
}
