// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverRuntime
internal import Synchronization

/// Between a batch's consumer, which has the window, and the task that reads an asynchronous input and makes the calls.
///
/// The consumer grants places; the feeder reads one item for each, in turn. So a slow input holds nobody up, and a slow
/// consumer stops the input.
@usableFromInline
final class BatchFeed<Input: Sendable, Output: Sendable>: Sendable {
    /// An item that got its call, or couldn't.
    struct Delivery: Sendable {
        let place: UInt32
        let input: Input
        let result: Result<AsyncResult<Output>, any Error>
    }

    /// What has come since the last look.
    struct News: Sendable {
        var deliveries: [Delivery] = []
        /// How many items there were, once the input is at its end.
        var count: Int?
        /// Why the input ended early.
        var error: (any Error)?
    }

    private struct State: Sendable {
        var granted = Deque<UInt32>()
        var news = News()
        var deliveredCount = 0
        var isClosed = false
        var waiter: Resumption<Void>?
        var task: Task<Void, Never>?
    }

    private let state = Mutex(State())
    private let inbox: BatchInbox

    init(inbox: BatchInbox) { self.inbox = inbox }

    // MARK: For the consumer

    /// Starts to read.
    @usableFromInline
    func start<Inputs: AsyncSequence & Sendable>(_ inputs: Inputs, _ make: @escaping CallMaker<Input, Output>)
    where Inputs.Element == Input {
        // The one task of a batch: its input may keep the reader waiting while results come.
        let task = Task { await self.read(inputs, make) }
        self.state.withLock { $0.task = task }
    }

    /// Lets the feeder use places, in this order.
    func grant(_ places: [UInt32]) {
        let waiter = self.state.withLock { state in
            state.granted.append(contentsOf: places)
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        waiter?.resume()
    }

    /// What has come since the last look.
    func takeNews() -> News {
        self.state.withLock { state in
            let news = state.news
            state.news = News(count: news.count)
            return news
        }
    }

    /// No more items are wanted.
    ///
    /// - Returns: What has come since the last look, and how many items there were.
    func close() -> News {
        let (news, waiter, task) = self.state.withLock { state in
            state.isClosed = true
            var news = state.news
            news.count = state.deliveredCount
            state.news = News()
            let waiter = state.waiter
            state.waiter = nil
            return (news, waiter, state.task)
        }
        task?.cancel()
        waiter?.resume()
        return news
    }

    // MARK: The feeder

    private func read<Inputs: AsyncSequence & Sendable>(_ inputs: Inputs, _ make: CallMaker<Input, Output>) async
    where Inputs.Element == Input {
        let core = self.inbox.core
        var iterator = inputs.makeAsyncIterator()
        do {
            while let place = await self.nextPlace() {
                guard let input = try await iterator.next() else { return self.inputEnded(nil) }
                // Nothing would tell the consumer that the call isn't served.
                try core.checkRunning()
                // Waits only if the client has as many calls outstanding as it may.
                if !core.takePlace() { try await core.waitForPlace(function: "", expiry: nil) }
                try self.deliver(input, in: place, make)
            }
        } catch {
            self.inputEnded(error)
        }
    }

    private func deliver(_ input: Input, in place: UInt32, _ make: CallMaker<Input, Output>) throws {
        let core = self.inbox.core
        do {
            let call = try make(input)
            _ = call.add(.batch(self.inbox, BatchMark(place: place)))
            // Before it starts: the consumer must know the call before its end.
            guard self.put(Delivery(place: place, input: input, result: .success(call))) else {
                call.cancel()
                return
            }
            self.inbox.hold(call.references)
            core.start(call)
        } catch {
            core.giveBackPlace()
            if error is ConnectionError { throw error }
            self.inbox.refused()
            guard self.put(Delivery(place: place, input: input, result: .failure(error))) else { return }
            self.inbox.newsCame()
        }
    }

    /// Returns false if nobody wants it.
    private func put(_ delivery: Delivery) -> Bool {
        self.state.withLock { state in
            guard !state.isClosed else { return false }
            state.news.deliveries.append(delivery)
            state.deliveredCount += 1
            return true
        }
    }

    private func inputEnded(_ error: (any Error)?) {
        self.state.withLock { state in
            state.news.count = state.deliveredCount
            state.news.error = error
        }
        self.inbox.newsCame()
    }

    /// Waits for a place; nil when no more items are wanted.
    private func nextPlace() async -> UInt32? {
        while true {
            let (place, isClosed) = self.state.withLock { ($0.granted.popFirst(), $0.isClosed) }
            if isClosed { return nil }
            if let place { return place }
            await withResumption { continuation in
                let mustWait = self.state.withLock { state in
                    guard state.granted.isEmpty, !state.isClosed else { return false }
                    state.waiter = continuation
                    return true
                }
                if !mustWait { continuation.resume() }
            }
        }
    }
}
