// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime

/// A function that is called for every item of an input, made by `Client.map`.
///
/// ```swift
/// for try await (path, digest) in client.map(.checksum, over: paths) { print(digest, path) }
/// ```
///
/// Nothing happens until it is iterated, once. Then a window of items is under way at any time, however many there are:
/// the input is read as results are taken, so neither has to fit into memory. The input's iterator runs where the batch is
/// iterated; an asynchronous input is read by a task of its own.
///
/// To stop iterating, by leaving the loop, by an error or by cancellation of the task, cancels what is under way.
///
/// Iterating gives inputs and values. The first failure ends it with a ``BatchError``, or, with
/// ``MapOptions/FailurePolicy/goOn``, all failures are told so at the end. To see each item's own end iterate ``items``.
public struct Batch<Input: Sendable, Output: Sendable>: AsyncSequence {
    /// An input and its value.
    public typealias Element = (Input, Output)

    /// Where the iterators of one batch find that they aren't the first.
    private final class Start {
        var source: BatchSource<Input, Output>?

        init(_ source: BatchSource<Input, Output>) { self.source = source }
    }

    private let start: Start
    private let options: MapOptions
    private let chunks: ChunkMaking
    private let coding: ItemCoding<Input, Output>
    private let make: CallMaker<Input, Output>
    /// The batch as others may see it while it runs: its progress, and a way to cancel it.
    public let handle: BatchHandle

    @usableFromInline
    init(
        _ source: BatchSource<Input, Output>,
        of core: ClientCore,
        total: Int?,
        options: MapOptions,
        chunks: ChunkMaking,
        coding: ItemCoding<Input, Output>,
        make: @escaping CallMaker<Input, Output>
    ) {
        self.start = Start(source)
        self.options = options
        self.chunks = chunks
        self.coding = coding
        self.make = make
        let inbox = BatchInbox(
            core: core,
            total: options.expectedTotal ?? total,
            wakesOnFailure: options.onFailure == .stop
        )
        self.handle = BatchHandle(inbox: inbox)
    }

    /// How far the batch has come; ``handle`` tells it on other threads and tasks.
    public var progress: BatchProgress { self.handle.progress }

    /// Each item as it ends, with its value or its own error.
    ///
    /// With ``MapOptions/FailurePolicy/stop`` the first item that failed is the last one.
    public var items: BatchItems<Input, Output> { BatchItems(batch: self) }

    /// Begins the batch.
    ///
    /// - Returns: The iterator of the one consumer; a second one throws a `UsageError`.
    public func makeAsyncIterator() -> Iterator { Iterator(pairs: Pairs(run: self.begin())) }

    /// The run of the one consumer; nil for every other.
    @usableFromInline
    func begin() -> BatchRun<Input, Output>? {
        guard let source = self.start.source else { return nil }
        self.start.source = nil
        return BatchRun(
            source: source,
            inbox: self.handle.inbox,
            options: self.options,
            chunks: self.chunks,
            coding: self.coding,
            make: self.make
        )
    }

    /// Reads the inputs and values of a batch.
    public struct Iterator: AsyncIteratorProtocol {
        @usableFromInline var pairs: Pairs

        /// The next input and its value.
        ///
        /// - Parameter actor: Where it runs, the input's iterator included.
        /// - Returns: Nil after the last one.
        /// - Throws: ``BatchError``; `CancellationError` if the task or the batch was cancelled; `ConnectionError` if the
        ///   client was closed; what an asynchronous input throws.
        @inlinable
        public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async throws -> Element? {
            let run = try self.pairs.running
            while true {
                if let item = try run.nextAtOnce() {
                    if let pair = try self.pairs.pair(of: item) { return pair }
                } else if let item = try await run.next() {
                    if let pair = try self.pairs.pair(of: item) { return pair }
                } else {
                    return try self.pairs.ended()
                }
            }
        }

        /// The next input and its value.
        ///
        /// - Returns: Nil after the last one.
        /// - Throws: As ``next(isolation:)``.
        @inlinable
        public mutating func next() async throws -> Element? { try await self.next(isolation: #isolation) }
    }

    /// Sorts values from failures.
    @usableFromInline
    struct Pairs {
        @usableFromInline let run: BatchRun<Input, Output>?
        @usableFromInline var failures = BatchError()

        @usableFromInline
        init(run: BatchRun<Input, Output>?) { self.run = run }

        @inlinable var running: BatchRun<Input, Output> {
            get throws {
                guard let run else { throw UsageError.alreadyIterated }
                return run
            }
        }

        @inlinable
        mutating func pair(of item: BatchItem<Input, Output>) throws -> Element? {
            switch item.result {
            case .success(let value): return (item.input, value)
            case .failure(let error):
                self.failures.add(error, at: item.index)
                if try self.running.stopsOnFailure { _ = try self.ended() }
                return nil
            }
        }

        /// Tells the failures, once.
        @inlinable
        mutating func ended() throws -> Element? {
            guard self.failures.failureCount > 0 else { return nil }
            defer { self.failures = BatchError() }
            throw self.failures
        }
    }
}

@available(*, unavailable)
extension Batch.Iterator: Sendable {}

/// The items of a batch as they end, each with its value or its own error; see ``Batch/items``.
public struct BatchItems<Input: Sendable, Output: Sendable>: AsyncSequence {
    /// An item that has ended.
    public typealias Element = BatchItem<Input, Output>

    @usableFromInline let batch: Batch<Input, Output>

    /// Begins the batch.
    ///
    /// - Returns: The iterator of the one consumer; a second one throws a `UsageError`.
    public func makeAsyncIterator() -> Iterator { Iterator(run: self.batch.begin()) }

    /// Reads the items of a batch.
    public struct Iterator: AsyncIteratorProtocol {
        @usableFromInline let run: BatchRun<Input, Output>?

        /// The next item that has ended.
        ///
        /// - Parameter actor: Where it runs, the input's iterator included.
        /// - Returns: Nil after the last one.
        /// - Throws: `CancellationError` if the task or the batch was cancelled; `ConnectionError` if the client was
        ///   closed; what an asynchronous input throws. Never an item's own error.
        @inlinable
        public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async throws -> Element? {
            guard let run else { throw UsageError.alreadyIterated }
            if let item = try run.nextAtOnce() { return item }
            return try await run.next()
        }

        /// The next item that has ended.
        ///
        /// - Returns: Nil after the last one.
        /// - Throws: As ``next(isolation:)``.
        @inlinable
        public mutating func next() async throws -> Element? { try await self.next(isolation: #isolation) }
    }
}

@available(*, unavailable)
extension BatchItems.Iterator: Sendable {}

extension UsageError {
    @usableFromInline static var alreadyIterated: UsageError {
        UsageError(.alreadyIterated, "a batch can be iterated once; make another one with map")
    }
}
