// SPDX-License-Identifier: Apache-2.0

/// One item of a batch that has ended.
public struct BatchItem<Input: Sendable, Output: Sendable>: Sendable {
    /// Its place in the input, from 0.
    public let index: Int
    /// What the function was called with.
    public let input: Input
    /// What came of it: the value, or the error that awaiting the call would have thrown.
    public let result: Result<Output, any Error>

    @inlinable
    init(index: Int, input: Input, result: Result<Output, any Error>) {
        self.index = index
        self.input = input
        self.result = result
    }
}

/// Items of a batch failed.
public struct BatchError: Error, Sendable {
    /// One item's failure.
    public struct Failure: Sendable {
        /// The item's place in the input, from 0.
        public let index: Int
        /// The error that awaiting the call would have thrown.
        public let error: any Error
    }

    /// How many failures are kept.
    static var limit: Int { 100 }

    /// The first failures, in the order in which they were seen: at least one, at most 100.
    public private(set) var failures: [Failure] = []
    /// How many items failed.
    public private(set) var failureCount = 0

    @usableFromInline init() {}

    @usableFromInline
    mutating func add(_ error: any Error, at index: Int) {
        self.failureCount += 1
        if self.failures.count < Self.limit { self.failures.append(Failure(index: index, error: error)) }
    }
}

extension BatchError: CustomStringConvertible {
    /// The number of failures and the first of them, in one line.
    public var description: String {
        guard let first = self.failures.first else { return "no item failed" }
        let count = self.failureCount == 1 ? "" : "\(self.failureCount) items failed, first "
        return "\(count)item \(first.index): \(first.error)"
    }
}
