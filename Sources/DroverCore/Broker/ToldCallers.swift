// SPDX-License-Identifier: Apache-2.0

/// Which callers a worker was told of in its session with a broker: each before its first request, and anew when the number stands
/// for another.
package struct ToldCallers: Sendable {
    /// What each number stood for when it was told; 0 if it wasn't.
    private var marks: [UInt64] = []

    package init() {}

    /// A request of a caller goes to the worker.
    ///
    /// - Parameters:
    ///   - number: The caller's.
    ///   - mark: What tells those apart that the number stood for; not 0.
    /// - Returns: Whether the worker must first be told which caller the number stands for.
    package mutating func mustTell(_ number: Int, mark: UInt64) -> Bool {
        if number >= self.marks.count {
            self.marks.append(contentsOf: repeatElement(0, count: number + 1 - self.marks.count))
        }
        guard self.marks[number] != mark else { return false }
        self.marks[number] = mark
        return true
    }

    /// The session went on, or another began: all is told again.
    package mutating func forget() { self.marks = [] }
}
