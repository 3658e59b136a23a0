// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// Makes an item's call, which has a place among the client's outstanding ones, without starting it.
@usableFromInline
typealias CallMaker<Input, Output: Sendable> = @Sendable (Input) throws -> AsyncResult<Output>

/// Where a batch's items come from.
enum BatchSource<Input: Sendable, Output: Sendable> {
    /// Read by the consumer, on its own thread or task.
    case sequence(() -> Input?)
    /// Read by a task of its own, which is started when the consumer begins.
    case feed(start: (BatchFeed<Input, Output>) -> Void)
}

/// The consumer's side of a batch: reads items, makes their calls, delivers what comes of them.
///
/// Everything here runs on the consumer's own thread or task, in ``step()``; nothing happens while the consumer does
/// something else, save that calls end and an asynchronous input is read. It belongs to one iterator: when that goes, the
/// rest is cancelled.
final class BatchRun<Input: Sendable, Output: Sendable> {
    /// What the consumer is to do next.
    enum Step {
        case item(BatchItem<Input, Output>)
        /// The batch is over.
        case finished
        /// Sleep until the call in the place has ended, or any.
        case sleep(until: UInt32?)
        /// The client has as many calls outstanding as it may, none of them from here: wait for a place.
        case waitForPlace
    }

    let inbox: BatchInbox
    let stopsOnFailure: Bool
    private let core: ClientCore
    private let make: CallMaker<Input, Output>
    private var source: BatchSource<Input, Output>
    private var feed: BatchFeed<Input, Output>?

    private var window: BatchWindow
    // By place, as far as places were ever used.
    private var inputs: [Input?] = []
    private var calls: [AsyncResult<Output>?] = []
    /// Why items have no call.
    private var refusals: [UInt32: any Error] = [:]
    /// Emptied and filled at each look into the inbox.
    private var ended: [UInt32] = []
    private var granted: [UInt32] = []
    /// Set once no more calls can be made: thrown after what is under way was delivered.
    private var failure: (any Error)?
    /// Whether the client had no place for the next call.
    private var lacksPlace = false
    /// Whether the consumer waited for a place and got it.
    private var hasPlace = false
    private var hasBegun = false
    private var hasFailed = false
    private var isOver = false

    init(
        source: BatchSource<Input, Output>,
        inbox: BatchInbox,
        options: MapOptions,
        make: @escaping CallMaker<Input, Output>
    ) {
        self.source = source
        self.inbox = inbox
        self.core = inbox.core
        self.make = make
        self.stopsOnFailure = options.onFailure == .stop
        self.window = BatchWindow(
            size: min(options.window, inbox.core.configuration.maxOutstandingCalls),
            isOrdered: options.order == .asGiven
        )
    }

    deinit { self.finish() }

    // MARK: The consumer

    /// The next item; nil after the last one.
    func next() async throws -> BatchItem<Input, Output>? {
        if Task.isCancelled { self.inbox.cancel() }
        while true {
            switch try self.step() {
            case .item(let item): return item
            case .finished: return nil
            case .sleep(let place): await self.inbox.sleep(until: place)
            case .waitForPlace:
                do { try await self.core.waitForPlace(function: "", expiry: nil) } catch {
                    throw self.finish(with: error)
                }
                self.hasPlace = true
            }
        }
    }

    /// The next item, blocking this thread until it is there; nil after the last one.
    @available(*, noasync)
    func nextBlocking() throws -> BatchItem<Input, Output>? {
        while true {
            switch try self.step() {
            case .item(let item): return item
            case .finished: return nil
            case .sleep(let place):
                do { try self.core.checkWaiting() } catch { throw self.finish(with: error) }
                self.inbox.sleepBlocking(until: place)
            case .waitForPlace:
                do { try self.core.checkWaiting() } catch { throw self.finish(with: error) }
                self.core.waitForPlaceBlocking()
                self.hasPlace = true
            }
        }
    }

    /// Does what can be done without waiting.
    private func step() throws -> Step {
        guard !self.isOver else { return .finished }
        if !self.hasBegun {
            self.hasBegun = true
            self.inbox.begin()
        }
        if self.inbox.hasMail { try self.look() }
        while true {
            if let place = self.window.deliver() {
                let item = self.takeItem(in: place)
                if self.stopsOnFailure, case .failure = item.result {
                    self.finish()
                } else if self.window.wantsItems {
                    self.fill()
                }
                return .item(item)
            }
            if self.window.isFinished {
                guard let failure else {
                    self.finish()
                    return .finished
                }
                throw self.finish(with: failure)
            }
            self.fill()
            try self.look()
            if self.window.hasDeliverable || self.window.isFinished { continue }
            if self.lacksPlace {
                if self.window.heldCount == 0 { return .waitForPlace }
            } else if self.window.hasRoom {
                // What came meanwhile was not what is awaited.
                continue
            }
            if self.core.isStopped { throw self.finish(with: UsageError.notRunning) }
            return .sleep(until: self.window.awaitedPlace)
        }
    }

    // MARK: Items in

    /// Begins as many items as there is room for, or as come before something else is to do.
    private func fill() {
        switch self.source {
        case .sequence(let next): self.begin(next)
        case .feed(let start):
            guard self.window.hasRoom else { return }
            let feed: BatchFeed<Input, Output>
            if let known = self.feed {
                feed = known
            } else {
                feed = BatchFeed(inbox: self.inbox)
                self.feed = feed
                start(feed)
            }
            while self.window.hasRoom { self.granted.append(self.window.take()) }
            feed.grant(self.granted)
            self.granted.removeAll(keepingCapacity: true)
        }
    }

    private func begin(_ next: () -> Input?) {
        self.lacksPlace = false
        while self.window.hasRoom {
            guard self.hasPlace || self.core.takePlace() else {
                // Calls of this batch that end make room, if there are any.
                self.lacksPlace = true
                return
            }
            self.hasPlace = false
            guard let input = next() else {
                self.core.giveBackPlace()
                self.inbox.inputEnded(after: self.window.takenCount)
                return self.window.closed()
            }
            do {
                let call = try self.make(input)
                let place = self.window.take()
                self.keep(input, call, in: place)
                _ = call.add(.batch(self.inbox, place))
                self.core.start(call)
            } catch let error as ConnectionError {
                // The client was closed: there is no use in trying all the others.
                self.core.giveBackPlace()
                self.failure = error
                return self.window.closed()
            } catch {
                self.core.giveBackPlace()
                self.refuse(input, error)
            }
            // An input may take its time: what came meanwhile goes first.
            if self.inbox.hasMail { return }
        }
    }

    private func refuse(_ input: Input, _ error: any Error) {
        let place = self.window.take()
        self.keep(input, nil, in: place)
        self.inbox.refused()
        self.refused(place, error)
    }

    private func refused(_ place: UInt32, _ error: any Error) {
        self.refusals[place] = error
        self.window.ended(in: place)
        self.itemFailed(in: place)
    }

    private func keep(_ input: Input, _ call: AsyncResult<Output>?, in place: UInt32) {
        while self.calls.count <= Int(place) {
            self.calls.append(nil)
            self.inputs.append(nil)
        }
        self.calls[Int(place)] = call
        self.inputs[Int(place)] = input
    }

    // MARK: Items out

    /// Takes what has come.
    private func look() throws {
        let isCancelled = self.inbox.take(&self.ended)
        if isCancelled { throw self.finish(with: CancellationError()) }
        if let feed { self.take(feed.takeNews()) }
        for place in self.ended {
            // After a failure, places of the cancelled may be named here.
            guard let call = self.calls[Int(place)] else { continue }
            // A poller that was stopped let the call go.
            guard call.isTerminal else { throw self.finish(with: UsageError.notRunning) }
            self.window.ended(in: place)
            if call.currentStatus != .value { self.itemFailed(in: place) }
        }
        self.ended.removeAll(keepingCapacity: true)
    }

    private func take(_ news: BatchFeed<Input, Output>.News) {
        for delivery in news.deliveries {
            switch delivery.result {
            case .success(let call): self.keep(delivery.input, call, in: delivery.place)
            case .failure(let error):
                self.keep(delivery.input, nil, in: delivery.place)
                self.refused(delivery.place, error)
            }
        }
        if let count = news.count, !self.window.isClosed {
            self.failure = news.error
            self.window.closed(after: count)
            self.inbox.inputEnded(after: count)
        }
    }

    private func takeItem(in place: UInt32) -> BatchItem<Input, Output> {
        var input: Input?
        var call: AsyncResult<Output>?
        swap(&input, &self.inputs[Int(place)])
        swap(&call, &self.calls[Int(place)])
        guard let input else { preconditionFailure("a batch delivers an item without its input") }
        let result: Result<Output, any Error>
        if let call {
            result = call.endedResult
        } else {
            result = .failure(self.refusals.removeValue(forKey: place) ?? CancellationError())
        }
        return BatchItem(index: self.window.index(in: place), input: input, result: result)
    }

    // MARK: The end

    /// An item failed: if that ends the batch, nothing more is begun, and those are cancelled that won't be delivered.
    private func itemFailed(in place: UInt32) {
        guard self.stopsOnFailure, !self.hasFailed else { return }
        self.hasFailed = true
        if let feed = self.feed {
            let news = feed.close()
            self.take(news)
        }
        self.window.closed()
        let index = self.window.index(in: place)
        for other in self.calls.indices {
            guard let call = self.calls[other], !self.window.hasEnded(in: UInt32(other)) else { continue }
            // In order, what stands before it is still to be delivered.
            if self.window.isOrdered, self.window.index(in: UInt32(other)) < index { continue }
            self.cancel(call, in: UInt32(other))
        }
    }

    private func cancel(_ call: AsyncResult<Output>, in place: UInt32) {
        // Nobody is told, and it isn't counted.
        _ = call.withdraw(.batch(self.inbox, place))
        call.cancel()
    }

    private func finish(with error: any Error) -> any Error {
        self.finish()
        return error
    }

    /// Ends the batch, in whatever way: cancels what is under way and lets go of everything.
    private func finish() {
        guard !self.isOver else { return }
        self.isOver = true
        self.inbox.close()
        if let feed = self.feed { self.take(feed.close()) }
        for (place, call) in self.calls.enumerated() {
            if let call, !call.isTerminal { self.cancel(call, in: UInt32(place)) }
        }
        if self.hasPlace { self.core.giveBackPlace() }
        self.feed = nil
        self.calls = []
        self.inputs = []
        self.refusals = [:]
        self.source = .sequence { nil }
    }
}

extension AsyncResult {
    /// What came of a call that has ended.
    var endedResult: Result<Value, any Error> {
        if let value = self.readyValue { return .success(value) }
        guard let outcome = self.outcome else { return .failure(UsageError.notRunning) }
        return Result { try outcome.get() }
    }
}
