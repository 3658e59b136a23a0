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
            // Those that wait for nobody come last: what is left out of an answer must not be what people look for.
            .sorted { lhs, rhs in
                let (left, right) = (lhs.workers == 0 ? 1 : 0, rhs.workers == 0 ? 1 : 0)
                return (left, lhs.function, lhs.demands.queue) < (right, rhs.function, rhs.demands.queue)
            }
    }
}
