// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverCore
internal import DroverRuntime

/// Makes an item's call, which has a place among the client's outstanding ones, without starting it.
@usableFromInline
typealias CallMaker<Input, Output: Sendable> = @Sendable (Input) throws -> AsyncResult<Output>

/// Where a batch's items come from.
@usableFromInline
enum BatchSource<Input: Sendable, Output: Sendable> {
    /// Read by the consumer, on its own thread or task.
    case sequence(() -> Input?)
    /// Read by a task of its own, which is started when the consumer begins.
    case feed(start: (BatchFeed<Input, Output>) -> Void)
}

/// The consumer's side of a batch: reads items, makes their calls, delivers what comes of them.
///
/// Everything here runs on the consumer's own thread or task, when it asks for the next item; nothing happens while the
/// consumer does something else, save that calls end and an asynchronous input is read. It belongs to one iterator: when
/// that goes, the rest is cancelled.
@usableFromInline
final class BatchRun<Input: Sendable, Output: Sendable>: BatchEngine {
    @usableFromInline let make: CallMaker<Input, Output>
    @usableFromInline let coding: ItemCoding<Input, Output>
    @safe @exclusivity(unchecked) @usableFromInline var source: BatchSource<Input, Output>
    /// By place, as far as places were ever used.
    @safe @exclusivity(unchecked) @usableFromInline var inputs: [Input?] = []
    @safe @exclusivity(unchecked) private var feed: BatchFeed<Input, Output>?
    @safe @exclusivity(unchecked) private var granted: [UInt32] = []

    @usableFromInline
    init(
        source: BatchSource<Input, Output>,
        inbox: BatchInbox,
        options: MapOptions,
        chunks: ChunkMaking,
        coding: ItemCoding<Input, Output>,
        make: @escaping CallMaker<Input, Output>
    ) {
        self.source = source
        self.make = make
        self.coding = coding
        super.init(inbox: inbox, options: options, chunks: chunks)
    }

    deinit { self.finish() }

    // MARK: The consumer

    /// The next item if it is there; nil if it isn't, or after the last one.
    ///
    /// What needs no waiting needs no change of executors either, which would take longer than all else about a quick item.
    @inlinable
    func nextAtOnce() throws -> BatchItem<Input, Output>? {
        if Task.isCancelled { self.taskIsCancelled() }
        while true {
            switch try self.step() {
            case .item(let place): return self.takeItem(in: place)
            case .fill: self.fill()
            case .finished, .sleep, .waitForPlace: return nil
            }
        }
    }

    /// The next item; nil after the last one.
    @inlinable
    func next() async throws -> BatchItem<Input, Output>? {
        if Task.isCancelled { self.taskIsCancelled() }
        while true {
            switch try self.step() {
            case .item(let place): return self.takeItem(in: place)
            case .fill: self.fill()
            case .finished: return nil
            case .sleep(let place): await self.sleep(until: place)
            case .waitForPlace: try await self.waitForPlace()
            }
        }
    }

    /// The next item, blocking this thread until it is there; nil after the last one.
    @available(*, noasync)
    @inlinable
    func nextBlocking() throws -> BatchItem<Input, Output>? {
        while true {
            switch try self.step() {
            case .item(let place): return self.takeItem(in: place)
            case .fill: self.fill()
            case .finished: return nil
            case .sleep(let place): try self.sleepBlocking(until: place)
            case .waitForPlace: try self.waitForPlaceBlocking()
            }
        }
    }

    /// Begins as many items as there is room for, or as come before something else is to do.
    @inlinable
    func fill() {
        guard case .sequence(let next) = self.source else { return self.feedItems() }
        while self.sendsChunks, self.beginsChunk() {
            self.fillChunk(next)
            if self.hasMail { return }
        }
        if self.sendsChunks { return }
        while let place = self.takesAgain() {
            guard let input = self.inputs[Int(place)] else { continue }
            guard self.begins(input, in: place) else { return }
        }
        while self.takesItem() {
            guard let input = next() else { return self.inputEnded() }
            guard self.begins(input, in: nil) else { return }
            if self.hasMail { return }
        }
    }

    /// Makes the call of an item, which has a place among the client's calls.
    ///
    /// - Returns: False if no item can be called any more.
    @inlinable
    func begins(_ input: Input, in known: UInt32?) -> Bool {
        do {
            self.keep(input, in: self.begin(try self.make(input), in: known))
        } catch {
            guard let place = self.refuse(error, in: known) else { return false }
            self.keep(input, in: place)
        }
        return true
    }

    /// Writes a chunk that was begun, and sends it.
    @inlinable
    func fillChunk(_ next: () -> Input?) {
        while self.chunkTakesItem {
            let known = self.takeAgain()
            guard let input = known.map({ self.inputs[Int($0)] }) ?? next() else {
                self.inputEndedInChunk()
                break
            }
            var fits = false
            do throws(CodecError) {
                try self.beginItem()
                try self.coding.pack(input, &self.writer)
                fits = self.endItem()
            } catch {
                self.dropItem()
                // What is too large for a chunk may not be too large for a request.
                guard error.code == .tooLarge else {
                    guard let place = self.refuse(error, in: known, hasCallPlace: false) else { break }
                    self.keep(input, in: place)
                    continue
                }
            }
            if fits {
                self.keep(input, in: self.addToChunk(known))
            } else if self.chunkIsEmpty {
                // The place among the calls that the chunk had is the item's.
                _ = self.begins(input, in: known)
                return
            } else {
                self.keep(input, in: self.postpone(known))
                break
            }
        }
        self.sendChunk()
    }

    @inlinable
    func keep(_ input: Input, in place: UInt32) {
        while self.inputs.count <= Int(place) { self.inputs.append(nil) }
        self.inputs[Int(place)] = input
    }

    @inlinable
    func takeItem(in place: UInt32) -> BatchItem<Input, Output> {
        var input: Input?
        swap(&input, &self.inputs[Int(place)])
        guard let input else { preconditionFailure("a batch delivers an item without its input") }
        let index = self.index(in: place)
        let result: Result<Output, any Error>
        var isFailure = false
        let call = self.takeCall(in: place)
        if let chunk = call as? ChunkCall {
            let range = self.valueRange(in: place)
            do throws(CodecError) {
                result = .success(
                    try unsafe chunk.answer.withUnsafeBufferPointer { bytes throws(CodecError) in
                        let part = unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[range])
                        var reader = unsafe PackReader(over: part, limits: .received)
                        let value = try self.coding.unpack(&reader)
                        try reader.expectEnd()
                        return value
                    }
                )
            } catch {
                result = .failure(self.unreadable(chunk, as: Output.self, error))
                isFailure = true
            }
        } else if let call = call as? AsyncResult<Output> {
            if let value = call.readyValue {
                result = .success(value)
            } else {
                result = call.endedResult
                isFailure = true
            }
        } else {
            result = .failure(self.takeRefusal(in: place))
            isFailure = true
        }
        // While the consumer is busy with this one, others are under way.
        if self.delivered(isFailure: isFailure) { self.fill() }
        return BatchItem(index: index, input: input, result: result)
    }

    // MARK: An asynchronous input

    @usableFromInline
    func feedItems() {
        guard case .feed(let start) = self.source, self.window.hasRoom else { return }
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

    override func takeNews() {
        guard let feed = self.feed else { return }
        self.take(feed.takeNews())
    }

    override func closeFeed() {
        guard let feed = self.feed else { return }
        self.take(feed.close())
    }

    override func dropInputs() {
        self.feed = nil
        self.inputs = []
        self.source = .sequence { nil }
    }

    private func take(_ news: BatchFeed<Input, Output>.News) {
        for delivery in news.deliveries {
            self.keep(delivery.input, in: delivery.place)
            switch delivery.result {
            case .success(let call): self.keep(call, in: delivery.place)
            case .failure(let error):
                self.keep(nil, in: delivery.place)
                self.refused(delivery.place, error)
            }
        }
        if let count = news.count { self.inputEnded(after: count, news.error) }
    }
}

extension AsyncResult {
    /// What came of a call that has ended.
    @usableFromInline
    var endedResult: Result<Value, any Error> {
        if let value = self.readyValue { return .success(value) }
        guard let outcome = self.outcome else { return .failure(UsageError.notRunning) }
        return Result { try outcome.get() }
    }
}
