// SPDX-License-Identifier: Apache-2.0

/// Decides how many items of a batch go into one request.
///
/// A request costs both sides some microseconds whatever it carries, so quick items are sent together: as many as make
/// up about half a millisecond of work, going by the run times in the answers. That is enough to hide the cost, and
/// little enough that no item waits long for the others of its chunk, and that the work still spreads. Items that take
/// longer are sent alone.
package struct ChunkSizer: Sendable {
    /// How much work a chunk should carry.
    package static var targetNanoseconds: Double { 500_000 }
    /// The most items a chunk can have, however quick they are.
    package static var mostItems: Int { 4096 }
    /// By what factor a chunk may grow at a time, because the first few items may be far from typical.
    private static var growth: Int { 8 }

    /// The most that the window allows.
    private let limit: Int
    /// The most items that a chunk has come back with: workers end a chunk early if it takes long, or if its results
    /// are large.
    private var proven: Int
    /// How long an item takes, in nanoseconds; nil until one was answered.
    package private(set) var itemNanoseconds: Double?
    /// Whether it is known how long items take.
    package var hasLearned: Bool { self.itemNanoseconds != nil }
    /// How many items the next chunk should have.
    package private(set) var size = 1

    /// Begins with single items, unless it is known how long they take.
    ///
    /// - Parameters:
    ///   - window: How many items may be under way: at least eight chunks fit into it.
    ///   - itemNanoseconds: How long items of another batch of the function took most recently.
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
    ///   - microseconds: How long they ran in total; 0 if the worker didn't say.
    package mutating func answered(count: Int, ran: Int, microseconds: UInt32) {
        guard ran > 0 else { return }
        self.proven = ran < count ? ran : min(self.limit, max(self.proven, count * 2))
        guard microseconds > 0 else {
            self.size = min(self.size, self.proven)
            return
        }
        let latest = Double(microseconds) * 1000 / Double(ran)
        // A slow item among quick ones counts at once, and is forgotten slowly.
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
