// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire

// Many items in one request; see docs/decisions/0016.

/// What a batch needs to make requests of many items.
@usableFromInline
struct ChunkMaking: Sendable {
    let function: FunctionInfo
    let options: CallOptions
    let chunking: MapOptions.Chunking

    @usableFromInline
    init(function: FunctionInfo, options: CallOptions, chunking: MapOptions.Chunking) {
        self.function = function
        self.options = options
        self.chunking = chunking
    }
}

/// How an item is written, and what came of it is read.
@usableFromInline
struct ItemCoding<Input: Sendable, Output: Sendable>: Sendable {
    @usableFromInline let pack: @Sendable (Input, inout PackWriter) throws(CodecError) -> Void
    @usableFromInline let unpack: @Sendable (inout PackReader) throws(CodecError) -> Output

    @usableFromInline
    init(
        pack: @escaping @Sendable (Input, inout PackWriter) throws(CodecError) -> Void,
        unpack: @escaping @Sendable (inout PackReader) throws(CodecError) -> Output
    ) {
        self.pack = pack
        self.unpack = unpack
    }
}

/// The chunks of a batch: the one that is being written, and those under way.
///
/// Not copyable, as `BatchWindow`.
struct ChunkBook: ~Copyable {
    /// With so many bytes a chunk is full, unless somebody takes less; a larger item travels alone.
    static var mostBytes: Int { 32_768 }
    /// With so many bytes of answers the worker begins no further item, and lets the others come back.
    static var answerBytes: Int { 65_536 }
    /// After so long the worker begins no further item: what is slow shall hold up little that is quick.
    static var mostMicroseconds: UInt64 { 10_000 }
    /// So many single items are sent before the first answer says how many are to share a request.
    static var firstItems: Int { 64 }
    /// No answer after that time says enough: the items are slow, and the others are sent singly as well.
    static var patience: Duration { .milliseconds(5) }

    let making: ChunkMaking
    var sizer: ChunkSizer
    var underWay: [ChunkCall?] = []
    var freeNumbers: [UInt32] = []
    var isPatient = false
    var lostPatience = false
    /// Where the values of items that have ended stand in their chunk's answer; by place.
    var values: [Range<Int>] = []
    /// Places whose items came back without having run; the last is taken first.
    var again: [UInt32] = []
    /// Places whose items were in chunks that died with their workers, with the number of deaths: each goes by itself, so
    /// that none is blamed for another.
    var deaths: [UInt32: (count: UInt8, workers: [String])] = [:]

    /// With so many bytes the chunk that is being written is full.
    var fullBytes = ChunkBook.mostBytes
    /// The places of the chunk that is being written.
    var places: [UInt32] = []
    /// Where the array's count stands.
    var countOffset = 0
    /// Where the item that is being written begins.
    var itemOffset = 0

    init(_ making: ChunkMaking, window: Int) {
        self.making = making
        self.sizer = ChunkSizer(window: window, itemNanoseconds: making.function.knownItemNanoseconds)
    }

    /// How many items the next chunk may have.
    var size: Int {
        switch making.chunking {
        case .automatic: self.sizer.size
        case .fixed(let count): max(1, min(count, ChunkSizer.mostItems))
        case .none: 1
        }
    }

    /// Whether the next chunk can wait for what the first ones teach.
    var holdsBack: Bool {
        !self.sizer.hasLearned && !self.lostPatience && self.making.chunking == .automatic
            && self.underWay.count - self.freeNumbers.count >= Self.firstItems
    }

    /// In how many deaths the item was that comes back next.
    var nextDeaths: UInt8 { self.again.last.flatMap { self.deaths[$0]?.count } ?? 0 }

    mutating func takeNumber() -> UInt32 {
        if let number = self.freeNumbers.popLast() { return number }
        self.underWay.append(nil)
        return UInt32(self.underWay.count - 1)
    }

    /// A chunk has ended, or isn't wanted: its number is free again.
    mutating func take(_ number: UInt32) -> ChunkCall? {
        guard let chunk = self.underWay[Int(number)] else { return nil }
        self.underWay[Int(number)] = nil
        self.freeNumbers.append(number)
        return chunk
    }

    /// In how many deaths the item was that is alone in the chunk which is being written.
    var chunkDeaths: UInt8 { self.places.first.flatMap { self.deaths[$0]?.count } ?? 0 }

    mutating func keep(_ range: Range<Int>, in place: UInt32) {
        while self.values.count <= Int(place) { self.values.append(0..<0) }
        self.values[Int(place)] = range
    }
}

extension BatchEngine {
    // MARK: Out

    /// Begins a chunk, if there is an item for it and a place among the client's calls.
    @usableFromInline
    final func beginsChunk() -> Bool {
        guard !self.book.again.isEmpty || self.window.hasRoom, !self.book.holdsBack, self.takesCall() else {
            return false
        }
        self.book.fullBytes = min(ChunkBook.mostBytes, self.core.leastPayloadLimit / 2)
        do {
            var writer = try self.core.beginRequest(
                self.book.making.options,
                of: self.book.making.function,
                deaths: self.book.nextDeaths
            )
            try writer.packLongestArrayHeader()
            self.book.countOffset = writer.count - 4
            // A client that takes little wants no answer of many parts.
            let most = min(ChunkBook.answerBytes, self.core.configuration.maxPayloadBytes / 2)
            try ChunkRequest.packLead(
                answerBytes: UInt64(most),
                microseconds: ChunkBook.mostMicroseconds,
                into: &writer
            )
            self.writer = writer
            return true
        } catch {
            self.core.giveBackPlace()
            self.failed(error)
            return false
        }
    }

    /// Whether the chunk takes another item.
    @usableFromInline final var chunkTakesItem: Bool {
        self.book.places.count < self.book.size && self.writer.count < self.book.fullBytes
            && (!self.book.again.isEmpty || self.window.hasRoom)
            && (self.book.places.isEmpty || (self.book.chunkDeaths == 0 && self.book.nextDeaths == 0))
    }

    /// Takes an item that came back, whose input is known.
    @usableFromInline
    final func takeAgain() -> UInt32? { self.book.again.popLast() }

    /// The next item's arguments follow.
    ///
    /// - Throws: If the chunk is too large for it.
    @usableFromInline
    final func beginItem() throws(CodecError) {
        self.book.itemOffset = self.writer.count
        try self.writer.packLongestBinaryHeader()
    }

    private static var itemHeaderBytes: Int { 5 }

    /// Takes back what was written of an item.
    @usableFromInline
    final func dropItem() { self.writer.rollBack(to: self.book.itemOffset) }

    /// The item's arguments were written.
    ///
    /// - Returns: False if it must have a request of its own: it is large, or names callbacks, which live at least as long as their call.
    @usableFromInline
    final func endItem() -> Bool {
        let offset = self.book.itemOffset
        let count = self.writer.count - offset - Self.itemHeaderBytes
        let refers = self.writer.hasReferences
        if refers { self.sendsChunks = false }
        guard !refers, count <= self.book.fullBytes else {
            self.dropItem()
            return false
        }
        self.writer.patch(UInt32(count), at: offset + 1)
        return true
    }

    /// Whether the chunk has items already.
    @usableFromInline final var chunkIsEmpty: Bool { self.book.places.isEmpty }

    /// The item in the place, or in a new one, belongs to the chunk.
    @usableFromInline
    final func addToChunk(_ known: UInt32?) -> UInt32 {
        let place = known ?? self.window.take()
        self.book.places.append(place)
        return place
    }

    /// An item that can't share a chunk waits for one of its own.
    @usableFromInline
    final func postpone(_ known: UInt32?) -> UInt32 {
        let place = known ?? self.window.take()
        self.keep(nil, in: place)
        self.book.again.append(place)
        return place
    }

    /// Sends the chunk, if it has any items.
    @usableFromInline
    final func sendChunk() {
        let deaths = self.book.chunkDeaths
        var places: [UInt32] = []
        swap(&places, &self.book.places)
        guard !places.isEmpty else { return self.core.giveBackPlace() }
        self.book.places.reserveCapacity(places.count)
        self.writer.patch(UInt32(places.count + ChunkRequest.leadCount), at: self.book.countOffset)
        var writer = PackWriter(capacity: 0)
        swap(&writer, &self.writer)
        let options = self.book.making.options
        let ticket = self.core.encoded(
            writer,
            of: self.book.making.function,
            // Items with callbacks are never in a chunk.
            [],
            options: options,
            expiry: options.expiry,
            as: .chunk,
            hasDeaths: deaths > 0
        )
        let workers = deaths > 0 ? self.book.deaths.removeValue(forKey: places[0])?.workers ?? [] : []
        let chunk = ChunkCall(
            ticket,
            number: self.book.takeNumber(),
            places: places,
            deaths: deaths,
            deadWorkers: workers
        )
        self.book.underWay[Int(chunk.number)] = chunk
        for place in places { self.keep(chunk, in: place) }
        _ = chunk.add(.batch(self.inbox, chunk.mark))
        self.core.start(chunk)
    }

    /// The input ended while a chunk was written.
    @usableFromInline
    final func inputEndedInChunk() {
        self.inbox.inputEnded(after: self.window.takenCount)
        self.window.closed()
    }

    /// Waits a little for the first answers.
    final func holdBack() {
        guard !self.book.isPatient else { return }
        self.book.isPatient = true
        let inbox = self.inbox
        Task {
            // It is never cancelled, and a moment early does no harm.
            try? await Task.sleep(for: ChunkBook.patience)
            inbox.waitedEnough()
        }
    }

    // MARK: Back

    /// A chunk has ended: sorts what came of its items.
    final func chunkEnded(_ number: UInt32) throws {
        guard let chunk = self.book.take(number) else { return }
        guard chunk.isTerminal else { throw UsageError.notRunning }
        guard chunk.currentStatus == .value else { return self.chunkFailed(chunk, chunk.ending) }
        let items: [ChunkItem]
        do throws(WireError) {
            items = try chunkItems(in: chunk.answer, count: chunk.places.count)
        } catch {
            let message = "the reply to \(chunk.functionName) \(chunk.correlationID) can't be understood: \(error)"
            return self.chunkFailed(chunk, ConnectionError(.protocol, message: message), isCounted: false)
        }
        var failedCount = 0
        var ranCount = items.count
        for (item, place) in zip(items, chunk.places) {
            switch item {
            case .value(let range):
                self.book.keep(range, in: place)
                self.window.ended(in: place)
            case .error(let range):
                failedCount += 1
                self.keep(nil, in: place)
                self.refused(place, chunk.error(at: range))
            case .notRun:
                ranCount -= 1
                self.comeBack(place)
            }
        }
        if ranCount < items.count || failedCount > 0 {
            self.inbox.corrected(done: ranCount - items.count, failed: failedCount)
        }
        self.book.sizer.answered(count: items.count, ran: ranCount, microseconds: chunk.ranMicroseconds)
        if let nanoseconds = self.book.sizer.itemNanoseconds {
            self.book.making.function.knownItemNanoseconds = nanoseconds
        }
    }

    /// The item has not run.
    private final func comeBack(_ place: UInt32) {
        self.keep(nil, in: place)
        // After a failure, only what is before it is still wanted.
        if let failedIndex, !self.window.isOrdered || self.window.index(in: place) > failedIndex { return }
        self.book.again.append(place)
    }

    private final func chunkFailed(_ chunk: ChunkCall, _ error: any Error, isCounted: Bool = true) {
        if (error as? RemoteError)?.code == .unsupported {
            // A worker that knows nothing of chunks, or whose handler has to be called for each item.
            self.sendsChunks = false
            for place in chunk.places { self.comeBack(place) }
            return self.inbox.corrected(done: -chunk.places.count, failed: -chunk.places.count)
        }
        if let remote = error as? RemoteError, remote.code == .poison, remote.attempts == 1 || chunk.places.count > 1,
            chunk.attempts == 0
        {
            // Its worker died; which item caused it is unknown.
            for place in chunk.places {
                self.book.deaths[place] = (UInt8(clamping: max(1, remote.attempts)), remote.workers)
                self.comeBack(place)
            }
            return self.inbox.corrected(done: -chunk.places.count, failed: -chunk.places.count)
        }
        var error = error
        if var remote = error as? RemoteError, remote.code == .poison, !chunk.deadWorkers.isEmpty {
            remote.workers = chunk.deadWorkers + remote.workers
            error = remote
        }
        if !isCounted { self.inbox.corrected(done: 0, failed: chunk.places.count) }
        for place in chunk.places {
            self.keep(nil, in: place)
            self.refused(place, error)
        }
    }

    /// Where the value of an item that came in a chunk stands in its answer.
    @usableFromInline
    final func valueRange(in place: UInt32) -> Range<Int> { self.book.values[Int(place)] }

    /// The value of an item isn't one of the declared type.
    @usableFromInline
    final func unreadable(_ chunk: ChunkCall, as type: Any.Type, _ error: CodecError) -> any Error {
        self.inbox.corrected(done: 0, failed: 1)
        switch chunk.unreadable(as: type, error) {
        case .remote(let error): return error
        case .connection(let error): return error
        case .timeout(let error): return error
        }
    }
}

extension ChunkCall {
    /// Gives `body` a reader of a part of the answer.
    fileprivate func withAnswer<Result>(
        _ range: Range<Int>,
        _ body: (inout PackReader) throws(CodecError) -> Result
    ) throws(CodecError) -> Result {
        try withPackReader(over: self.answer, limits: .received) { reader throws(CodecError) in
            try reader.withPart(range) { part throws(CodecError) in try body(&part) }
        }
    }

    /// The error of an item.
    fileprivate func error(at range: Range<Int>) -> any Error {
        let body = try? self.withAnswer(range) { reader throws(CodecError) in
            unsafe reader.takeRest { bytes in unsafe ErrorBody(reading: bytes) }
        }
        if let body { return body.error(of: self) }
        let message = "the worker's error for an item of \(self.functionName) \(self.correlationID) can't be understood"
        return ConnectionError(.protocol, message: message)
    }
}
