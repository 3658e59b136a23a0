// SPDX-License-Identifier: Apache-2.0

/// Which callers a worker has been told about in its session with a broker: each before its first request, and again
/// when its number stands for another caller.
package struct ToldCallers: Sendable {
    /// What each number stood for when the worker was told; 0 if it hasn't been told.
    private var marks: [UInt64] = []

    package init() {}

    /// A caller's request goes to the worker.
    ///
    /// - Parameters:
    ///   - number: The caller's number.
    ///   - mark: Distinguishes the callers that the number has stood for; not 0.
    /// - Returns: Whether the worker must first be told which caller the number stands for.
    package mutating func mustTell(_ number: Int, mark: UInt64) -> Bool {
        if number >= self.marks.count {
            self.marks.append(contentsOf: repeatElement(0, count: number + 1 - self.marks.count))
        }
        guard self.marks[number] != mark else { return false }
        self.marks[number] = mark
        return true
    }

    /// The session was resumed, or another began: the worker must be told everything again.
    package mutating func forget() { self.marks = [] }
}
