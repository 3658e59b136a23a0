// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Remembers for each type how it is written or read.
///
/// Finding out takes casts that cost microseconds each, most of all the one to a collection of bytes. A program has a
/// bounded number of types, so nothing is ever forgotten. May be used from any thread.
final class RouteCache<Route: Sendable>: Sendable {
    private let routes = Mutex<[ObjectIdentifier: Route]>([:])
    private let find: @Sendable (Any.Type) -> Route

    /// Creates a cache of what `find` returns; it must return the same each time.
    init(_ find: @escaping @Sendable (Any.Type) -> Route) {
        self.find = find
    }

    func route(of type: Any.Type) -> Route {
        let id = ObjectIdentifier(type)
        if let known = self.routes.withLock({ routes in routes[id] }) { return known }
        let route = self.find(type)
        self.routes.withLock { routes in routes[id] = route }
        return route
    }
}
