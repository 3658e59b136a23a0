// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// What a peer said of callbacks that nobody here knows yet, or any more: that they have ended, or are to pause.
///
/// A message about a callback may overtake the reading of the request that carries it. And a reference can be kept by
/// others for longer than its callback lives. Numbers are never used twice, so what has ended stays so. It remembers so
/// many; beyond that the oldest is forgotten, and the client says again that it has ended when it is sent something.
package struct CallbackMemory<ID: Hashable & Sendable>: Equatable, Sendable {
    private enum News: Equatable, Sendable { case ended, paused }

    private var news: [ID: News] = [:]
    /// In the order in which they came; each one that is remembered, once.
    private var order = Deque<ID>()
    private let limit: Int
    /// How much was forgotten since there was too much.
    package private(set) var forgottenCount = 0

    package init(limit: Int = 512) { self.limit = max(1, limit) }

    /// How many callbacks something is remembered of.
    package var count: Int { self.news.count }

    /// A callback is over.
    package mutating func ended(_ id: ID) { self.remember(.ended, of: id) }

    /// A callback's events are to pause, or to go on.
    package mutating func flow(_ id: ID, isPaused: Bool) {
        guard self.news[id] != .ended else { return }
        if isPaused { self.remember(.paused, of: id) } else { self.forget(id) }
    }

    package func hasEnded(_ id: ID) -> Bool { self.news[id] == .ended }

    /// Whether the callback's events are to pause; from now on the asker counts as having been told.
    package mutating func takePause(of id: ID) -> Bool {
        guard self.news[id] == .paused else { return false }
        self.forget(id)
        return true
    }

    private mutating func remember(_ what: News, of id: ID) {
        guard self.news.updateValue(what, forKey: id) == nil else { return }
        self.order.append(id)
        guard self.order.count > self.limit, let oldest = self.order.popFirst() else { return }
        self.news[oldest] = nil
        self.forgottenCount += 1
    }

    private mutating func forget(_ id: ID) {
        guard self.news.removeValue(forKey: id) != nil, let place = self.order.firstIndex(of: id) else { return }
        self.order.remove(at: place)
    }
}
