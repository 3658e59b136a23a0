// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverCore
internal import DroverRuntime

/// The consumer's side of a batch, as far as it doesn't know of inputs and values: what is under way, what comes next.
///
/// It isn't generic; ``BatchRun`` is, and is specialised where its types are known. Else most of an item's time would go into
/// looking types up. Nobody but the consumer touches it, and of others' code only an argument's
/// `encode` runs while something of it is changed, which has no way back here. So exclusivity isn't checked at run time
/// either: that took a quarter of an item's time.
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
        /// Sleep until the call of that mark has ended, or any.
        case sleep(until: UInt32?)
        /// The client has as many calls outstanding as it may, none of them from here: wait for a place.
        case waitForPlace
    }

    final let inbox: BatchInbox
    @usableFromInline final let stopsOnFailure: Bool
    final let core: ClientCore

    @safe @exclusivity(unchecked) final var window: BatchWindow
    /// By place, as far as places were ever used.
    @safe @exclusivity(unchecked) private final var calls: [AnyAsyncResult?] = []
    @safe @exclusivity(unchecked) final var book: ChunkBook
    /// Whether items may share requests.
    @safe @exclusivity(unchecked) @usableFromInline final var sendsChunks: Bool
    /// The chunk that is being written.
    @safe @exclusivity(unchecked) @usableFromInline final var writer = PackWriter(capacity: 0)
    /// Why items have no call.
    @safe @exclusivity(unchecked) private final var refusals: [UInt32: any Error] = [:]
    /// Emptied and filled at each look into the inbox.
    @safe @exclusivity(unchecked) private final var ended: [BatchMark] = []
    /// Set once no more calls can be made: thrown after what is under way was delivered.
    @safe @exclusivity(unchecked) private final var failure: (any Error)?
    /// Whether the client had no place for the next call.
    @safe @exclusivity(unchecked) private final var lacksPlace = false
    /// Whether the consumer waited for a place and got it.
    @safe @exclusivity(unchecked) private final var hasPlace = false
    @safe @exclusivity(unchecked) private final var hasBegun = false
    /// The number of the item whose failure ends the batch.
    @safe @exclusivity(unchecked) private(set) final var failedIndex: Int?
    @safe @exclusivity(unchecked) final var isOver = false

    @usableFromInline
    init(inbox: BatchInbox, options: MapOptions, chunks: ChunkMaking) {
        self.inbox = inbox
        self.core = inbox.core
        self.stopsOnFailure = options.onFailure == .stop
        self.window = BatchWindow(
            size: min(options.window, inbox.core.configuration.maxOutstandingCalls),
            isOrdered: options.order == .asGiven
        )
        self.book = ChunkBook(chunks, window: self.window.size)
        self.sendsChunks = chunks.chunking != .none
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
    final func sleep(until mark: UInt32?) async {
        let job = CurrentJob.ofTask
        let wait = job?.beginWait(for: self.callsUnderWay)
        await self.inbox.sleep(until: mark)
        if let job, let wait { job.endWait(wait) }
    }

    private var callsUnderWay: [AnyAsyncResult] { self.calls.compactMap { $0 } }

    @usableFromInline
    @available(*, noasync)
    final func sleepBlocking(until mark: UInt32?) throws {
        do { try self.core.checkWaiting() } catch { throw self.finish(with: error) }
        let job = CurrentJob.ofThread
        let wait = job?.beginWait(for: self.callsUnderWay)
        self.inbox.sleepBlocking(until: mark)
        if let job, let wait { job.endWaitBlocking(wait) }
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
        do { try self.core.waitForPlaceBlocking() } catch { throw self.finish(with: error) }
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
            if self.window.heldCount == self.book.again.count { return .waitForPlace }
        } else if self.window.hasRoom || !self.book.again.isEmpty {
            guard self.sendsChunks, self.book.holdsBack else { return .fill }
            self.holdBack()
        }
        if self.core.isStopped { throw self.finish(with: UsageError.notRunning) }
        return .sleep(until: self.awaitedMark)
    }

    /// By what the end of the item is told that is delivered next, in order; nil if any end is of interest.
    ///
    /// An item without a call, which waits for its input or for a place among the client's calls, is not told of.
    private final var awaitedMark: UInt32? {
        guard let place = self.window.awaitedPlace, Int(place) < self.calls.count, self.calls[Int(place)] != nil else {
            return nil
        }
        return self.mark(of: place).word
    }

    // MARK: Items in

    /// An item that came back and has a place among the client's calls now.
    @usableFromInline
    final func takesAgain() -> UInt32? {
        guard !self.book.again.isEmpty, self.takesCall() else { return nil }
        return self.book.again.removeLast()
    }

    /// Whether there is room for another item; it has a place among the client's outstanding calls then.
    @usableFromInline
    final func takesItem() -> Bool {
        guard self.window.hasRoom else { return false }
        return self.takesCall()
    }

    /// Takes a place among the client's outstanding calls, if there is one.
    @usableFromInline
    final func takesCall() -> Bool {
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
    /// - Parameters:
    ///   - call: The call.
    ///   - known: The item's place, if it has one.
    /// - Returns: The item's place.
    @usableFromInline
    final func begin(_ call: AnyAsyncResult, in known: UInt32? = nil) -> UInt32 {
        let place = known ?? self.window.take()
        self.keep(call, in: place)
        _ = call.add(.batch(self.inbox, BatchMark(place: place)))
        self.inbox.hold(call.references)
        self.core.start(call)
        return place
    }

    /// An item can't be called.
    ///
    /// - Parameters:
    ///   - error: Why.
    ///   - known: The item's place, if it has one.
    ///   - hasCallPlace: Whether a place among the client's calls was taken for it.
    /// - Returns: The item's place; nil if no item can be called any more.
    @usableFromInline
    final func refuse(_ error: any Error, in known: UInt32? = nil, hasCallPlace: Bool = true) -> UInt32? {
        if hasCallPlace { self.core.giveBackPlace() }
        if error is ConnectionError {
            self.failed(error)
            return nil
        }
        let place = known ?? self.window.take()
        self.keep(nil, in: place)
        self.inbox.refused()
        self.refused(place, error)
        return place
    }

    /// The client was closed: there is no use in trying all the others.
    final func failed(_ error: any Error) {
        self.failure = error
        for place in self.book.again {
            self.inbox.refused()
            self.refused(place, error)
        }
        self.book.again = []
        self.window.closed()
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
        if self.book.isPatient, !self.book.lostPatience { self.book.lostPatience = self.inbox.hasWaitedEnough }
        self.takeNews()
        for mark in self.ended {
            if let chunk = mark.chunk {
                do { try self.chunkEnded(chunk) } catch { throw self.finish(with: error) }
                continue
            }
            let place = mark.word
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
        guard self.stopsOnFailure, self.failedIndex == nil else { return }
        let index = self.window.index(in: place)
        self.failedIndex = index
        self.closeFeed()
        self.window.closed()
        self.book.again.removeAll { !self.window.isOrdered || self.window.index(in: $0) > index }
        for other in self.calls.indices {
            guard let call = self.calls[other], !self.window.hasEnded(in: UInt32(other)) else { continue }
            // In order, what stands before it is still to be delivered; items of a chunk follow each other.
            let first = (call as? ChunkCall)?.places.map { self.window.index(in: $0) }.min()
            if self.window.isOrdered, (first ?? self.window.index(in: UInt32(other))) < index { continue }
            self.cancel(call, in: UInt32(other))
        }
    }

    private final func cancel(_ call: AnyAsyncResult, in place: UInt32) {
        // Nobody is told, and it isn't counted.
        _ = call.withdraw(.batch(self.inbox, self.mark(of: place)))
        call.cancel()
    }

    /// By what its end is told.
    private final func mark(of place: UInt32) -> BatchMark {
        (self.calls[Int(place)] as? ChunkCall)?.mark ?? BatchMark(place: place)
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
        self.book.underWay = []
        self.book.again = []
        self.refusals = [:]
        self.dropInputs()
    }
}
