// SPDX-License-Identifier: Apache-2.0

/// How many items of a batch go into one request.
///
/// A request costs both sides some microseconds whatever it carries, so quick items travel together: as many as make up
/// about half a millisecond of work, by what the answers say they took. That is enough to hide the cost and little enough
/// that no item waits long for the others of its chunk, and that the work still spreads. Items that take longer than that
/// travel alone.
package struct ChunkSizer: Sendable {
    /// The work that a chunk is to carry.
    package static var targetNanoseconds: Double { 500_000 }
    /// No chunk has more, however quick its items are.
    package static var mostItems: Int { 4096 }
    /// What an answer tells of a few items may be far from what others take: a chunk grows by steps.
    private static var growth: Int { 8 }

    /// The most that the window allows.
    private let limit: Int
    /// The most that came back done: workers end a chunk early that takes long, or whose results are large.
    private var proven: Int
    /// What an item takes, in nanoseconds; nil until one was answered.
    package private(set) var itemNanoseconds: Double?
    /// Whether anything is known of how long items take.
    package var hasLearned: Bool { self.itemNanoseconds != nil }
    /// How many items the next chunk is to have.
    package private(set) var size = 1

    /// Begins with single items, unless something is known.
    ///
    /// - Parameters:
    ///   - window: How many items may be under way: at least eight chunks fit into it.
    ///   - itemNanoseconds: What items of another batch of the function took last.
    package init(window: Int, itemNanoseconds: Double? = nil) {
        self.limit = max(1, min(Self.mostItems, window / 8))
        self.proven = self.limit
        self.itemNanoseconds = itemNanoseconds
        if let itemNanoseconds { self.size = self.wanted(itemNanoseconds, most: self.limit) }
    }

    /// A chunk has come back.
    ///
    /// - Parameters:
    ///   - count: How many items it had.
    ///   - ran: How many of them ran, at least one.
    ///   - microseconds: How long they ran, all together; 0 if the worker didn't say.
    package mutating func answered(count: Int, ran: Int, microseconds: UInt32) {
        guard ran > 0 else { return }
        self.proven = ran < count ? ran : min(self.limit, max(self.proven, count * 2))
        guard microseconds > 0 else {
            self.size = min(self.size, self.proven)
            return
        }
        let latest = Double(microseconds) * 1000 / Double(ran)
        // One slow item among quick ones counts at once, and is forgotten slowly.
        if let known = self.itemNanoseconds {
            self.itemNanoseconds = latest > known ? (known + latest) / 2 : known + (latest - known) / 4
        } else {
            self.itemNanoseconds = latest
        }
        let most = min(self.limit, self.proven, max(self.size, count) * Self.growth)
        self.size = self.wanted(self.itemNanoseconds ?? latest, most: most)
    }

    private func wanted(_ nanoseconds: Double, most: Int) -> Int {
        let wanted = Self.targetNanoseconds / max(1, nanoseconds)
        return max(1, wanted < Double(most) ? Int(wanted) : most)
    }
}
