// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// The consumer's side of a batch, as far as it doesn't know of inputs and values: what is under way, what comes next.
///
/// It isn't generic; ``BatchRun`` is, and is specialised where its types are known. Else most of an item's time would go into
/// looking types up.
@usableFromInline
class BatchEngine {
    /// What the consumer is to do next.
    @usableFromInline
    enum Step {
        /// Take the item in the place.
        case item(UInt32)
        /// Begin items.
        case fill
        /// The batch is over.
        case finished
        /// Sleep until the call in the place has ended, or any.
        case sleep(until: UInt32?)
        /// The client has as many calls outstanding as it may, none of them from here: wait for a place.
        case waitForPlace
    }

    final let inbox: BatchInbox
    @usableFromInline final let stopsOnFailure: Bool
    final let core: ClientCore

    final var window: BatchWindow
    /// By place, as far as places were ever used.
    private final var calls: [AnyAsyncResult?] = []
    /// Why items have no call.
    private final var refusals: [UInt32: any Error] = [:]
    /// Emptied and filled at each look into the inbox.
    private final var ended: [UInt32] = []
    /// Set once no more calls can be made: thrown after what is under way was delivered.
    private final var failure: (any Error)?
    /// Whether the client had no place for the next call.
    private final var lacksPlace = false
    /// Whether the consumer waited for a place and got it.
    private final var hasPlace = false
    private final var hasBegun = false
    private final var hasFailed = false
    final var isOver = false

    @usableFromInline
    init(inbox: BatchInbox, options: MapOptions) {
        self.inbox = inbox
        self.core = inbox.core
        self.stopsOnFailure = options.onFailure == .stop
        self.window = BatchWindow(
            size: min(options.window, inbox.core.configuration.maxOutstandingCalls),
            isOrdered: options.order == .asGiven
        )
    }

    // MARK: An asynchronous input

    /// Takes what has come of an asynchronous input.
    func takeNews() {}

    /// Ends the reading of an asynchronous input, and takes what has come.
    func closeFeed() {}

    /// Lets go of the inputs.
    func dropInputs() {}

    // MARK: Steps

    @usableFromInline
    final func sleep(until place: UInt32?) async { await self.inbox.sleep(until: place) }

    @usableFromInline
    @available(*, noasync)
    final func sleepBlocking(until place: UInt32?) throws {
        do { try self.core.checkWaiting() } catch { throw self.finish(with: error) }
        self.inbox.sleepBlocking(until: place)
    }

    @usableFromInline
    final func waitForPlace() async throws {
        do { try await self.core.waitForPlace(function: "", expiry: nil) } catch { throw self.finish(with: error) }
        self.hasPlace = true
    }

    @usableFromInline
    @available(*, noasync)
    final func waitForPlaceBlocking() throws {
        do { try self.core.checkWaiting() } catch { throw self.finish(with: error) }
        self.core.waitForPlaceBlocking()
        self.hasPlace = true
    }

    @usableFromInline
    final func taskIsCancelled() { self.inbox.cancel() }

    /// Finds what is to be done next, without waiting.
    @usableFromInline
    final func step() throws -> Step {
        guard !self.isOver else { return .finished }
        if !self.hasBegun {
            self.hasBegun = true
            self.inbox.begin()
        }
        if self.inbox.hasMail { try self.look() }
        if let place = self.window.deliver() { return .item(place) }
        if self.window.isFinished {
            guard let failure else {
                self.finish()
                return .finished
            }
            throw self.finish(with: failure)
        }
        if self.lacksPlace {
            self.lacksPlace = false
            if self.window.heldCount == 0 { return .waitForPlace }
        } else if self.window.hasRoom {
            return .fill
        }
        if self.core.isStopped { throw self.finish(with: UsageError.notRunning) }
        return .sleep(until: self.window.awaitedPlace)
    }

    // MARK: Items in

    /// Whether there is room for another item; it has a place among the client's outstanding calls then.
    @usableFromInline
    final func takesItem() -> Bool {
        guard self.window.hasRoom else { return false }
        if self.hasPlace {
            self.hasPlace = false
            return true
        }
        if self.core.takePlace() { return true }
        // Calls of this batch that end make room, if there are any.
        self.lacksPlace = true
        return false
    }

    /// Starts an item's call.
    ///
    /// - Returns: The item's place.
    @usableFromInline
    final func begin(_ call: AnyAsyncResult) -> UInt32 {
        let place = self.window.take()
        self.keep(call, in: place)
        _ = call.add(.batch(self.inbox, place))
        self.core.start(call)
        return place
    }

    /// An item can't be called.
    ///
    /// - Returns: The item's place; nil if no item can be called any more.
    @usableFromInline
    final func refuse(_ error: any Error) -> UInt32? {
        self.core.giveBackPlace()
        if error is ConnectionError {
            // The client was closed: there is no use in trying all the others.
            self.failure = error
            self.window.closed()
            return nil
        }
        let place = self.window.take()
        self.keep(nil, in: place)
        self.inbox.refused()
        self.refused(place, error)
        return place
    }

    final func refused(_ place: UInt32, _ error: any Error) {
        self.refusals[place] = error
        self.window.ended(in: place)
        self.itemFailed(in: place)
    }

    /// The input is at its end.
    @usableFromInline
    final func inputEnded() {
        self.core.giveBackPlace()
        self.inbox.inputEnded(after: self.window.takenCount)
        self.window.closed()
    }

    /// An asynchronous input is at its end.
    final func inputEnded(after count: Int, _ error: (any Error)?) {
        guard !self.window.isClosed else { return }
        self.failure = error
        self.window.closed(after: count)
        self.inbox.inputEnded(after: count)
    }

    final func keep(_ call: AnyAsyncResult?, in place: UInt32) {
        while self.calls.count <= Int(place) { self.calls.append(nil) }
        self.calls[Int(place)] = call
    }

    /// Whether something else is to do than to begin more items: an input may take its time, and what came meanwhile goes
    /// first.
    @usableFromInline final var hasMail: Bool { self.inbox.hasMail }

    // MARK: Items out

    /// Takes what has come.
    private final func look() throws {
        let isCancelled = self.inbox.take(&self.ended)
        if isCancelled { throw self.finish(with: CancellationError()) }
        self.takeNews()
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

    /// The call of an item that is delivered.
    @usableFromInline
    final func takeCall(in place: UInt32) -> AnyAsyncResult? {
        var call: AnyAsyncResult?
        swap(&call, &self.calls[Int(place)])
        return call
    }

    /// Why an item that is delivered has no call.
    @usableFromInline
    final func takeRefusal(in place: UInt32) -> any Error {
        self.refusals.removeValue(forKey: place) ?? CancellationError()
    }

    @usableFromInline
    final func index(in place: UInt32) -> Int { self.window.index(in: place) }

    /// An item was delivered.
    ///
    /// - Returns: Whether it is worth while to begin others now.
    @usableFromInline
    final func delivered(isFailure: Bool) -> Bool {
        guard isFailure, self.stopsOnFailure else { return self.window.wantsItems }
        self.finish()
        return false
    }

    // MARK: The end

    /// An item failed: if that ends the batch, nothing more is begun, and those are cancelled that won't be delivered.
    private final func itemFailed(in place: UInt32) {
        guard self.stopsOnFailure, !self.hasFailed else { return }
        self.hasFailed = true
        self.closeFeed()
        self.window.closed()
        let index = self.window.index(in: place)
        for other in self.calls.indices {
            guard let call = self.calls[other], !self.window.hasEnded(in: UInt32(other)) else { continue }
            // In order, what stands before it is still to be delivered.
            if self.window.isOrdered, self.window.index(in: UInt32(other)) < index { continue }
            self.cancel(call, in: UInt32(other))
        }
    }

    private final func cancel(_ call: AnyAsyncResult, in place: UInt32) {
        // Nobody is told, and it isn't counted.
        _ = call.withdraw(.batch(self.inbox, place))
        call.cancel()
    }

    private final func finish(with error: any Error) -> any Error {
        self.finish()
        return error
    }

    /// Ends the batch, in whatever way: cancels what is under way and lets go of everything.
    @usableFromInline
    final func finish() {
        guard !self.isOver else { return }
        self.isOver = true
        self.inbox.close()
        self.closeFeed()
        for (place, call) in self.calls.enumerated() {
            if let call, !call.isTerminal { self.cancel(call, in: UInt32(place)) }
        }
        if self.hasPlace { self.core.giveBackPlace() }
        self.calls = []
        self.refusals = [:]
        self.dropInputs()
    }
}
