// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// Remembers what a peer said about callbacks that aren't known here yet, or any more: that they have ended, or should
/// pause.
///
/// A message about a callback may be read before the request that carries the callback. And a reference may be kept
/// elsewhere for longer than its callback lives. Numbers are never reused, so a callback that has ended stays ended.
/// The number of notices is limited; beyond that the oldest is forgotten, and the client says again that the callback
/// has ended when it is sent something.
package struct CallbackMemory<ID: Hashable & Sendable>: Equatable, Sendable {
    private enum News: Equatable, Sendable { case ended, paused }

    private var news: [ID: News] = [:]
    /// The remembered callbacks, each once, in the order in which their notices arrived.
    private var order = Deque<ID>()
    private let limit: Int
    /// How many notices were forgotten because there were too many.
    package private(set) var forgottenCount = 0

    package init(limit: Int = 512) { self.limit = max(1, limit) }

    /// How many callbacks something is remembered about.
    package var count: Int { self.news.count }

    /// A callback has ended.
    package mutating func ended(_ id: ID) { self.remember(.ended, of: id) }

    /// A callback's events should pause, or resume.
    package mutating func flow(_ id: ID, isPaused: Bool) {
        guard self.news[id] != .ended else { return }
        if isPaused { self.remember(.paused, of: id) } else { self.forget(id) }
    }

    package func hasEnded(_ id: ID) -> Bool { self.news[id] == .ended }

    /// Whether the callback's events should pause; from now on the caller counts as having been told.
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
