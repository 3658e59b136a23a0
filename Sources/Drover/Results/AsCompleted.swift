// SPDX-License-Identifier: Apache-2.0

/// Handles in the order in which their calls end; made by ``asCompleted(_:)``.
public struct CompletedResults<Value: Sendable>: AsyncSequence, Sendable {
    /// A handle whose call has ended.
    public typealias Element = AsyncResult<Value>

    let results: [AsyncResult<Value>]

    /// Starts waiting for the results.
    ///
    /// - Returns: An iterator that gives each handle once, when its call has ended.
    public func makeAsyncIterator() -> AsyncStream<AsyncResult<Value>>.AsyncIterator {
        let (stream, continuation) = AsyncStream<AsyncResult<Value>>.makeStream()
        let remaining = Countdown(self.results.count)
        if self.results.isEmpty { continuation.finish() }
        let tokens = self.results.map { result in
            result.addCallback { result in
                continuation.yield(result)
                if remaining.isOver() { continuation.finish() }
            }
        }
        continuation.onTermination = { reason in
            // A reader that stops early wants no more callbacks.
            if case .cancelled = reason { for token in tokens { token.remove() } }
        }
        return stream.makeAsyncIterator()
    }
}

/// Gives each of the results when its call has ended, in that order (contract S23).
///
/// ```swift
/// for await result in asCompleted(results) { print(result.outcome as Any) }
/// ```
///
/// - Parameter results: Handles, of any clients.
/// - Returns: A sequence that ends after the last of them.
public func asCompleted<Value: Sendable>(_ results: [AsyncResult<Value>]) -> CompletedResults<Value> {
    CompletedResults(results: results)
}
