// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire

// A request may carry many calls of one function: its items run one after the other, each to its own value or error.

extension Handler {
    /// The handler of such requests, made from that of single ones.
    static func chunked(_ body: Body, name: String) -> Body {
        switch body {
        case .sync(let body):
            .sync { (reader, writer) in
                var run = try ChunkRun(&reader, function: name)
                try run.runAll(reader, into: &writer, isCancelled: { false }, body)
            }
        case .syncWithContext(let body):
            .syncWithContext { (reader, context, writer) in
                var run = try ChunkRun(&reader, function: name)
                try run.runAll(reader, into: &writer, isCancelled: { context.isCancelled }) { (reader, writer) in
                    try body(&reader, context, &writer)
                }
            }
        case .async(let body):
            .async { (reader, context) in
                let run = try ChunkRun(&reader, function: name)
                let arguments = run.arguments(in: reader)
                return {
                    var run = run
                    let answer = try await run.runAll(arguments, context, body)
                    return { (writer: inout PackWriter) throws(CodecError) in
                        try writer.append(answer)
                    }
                }
            }
        }
    }
}

extension PackWriter {
    /// Appends a document that was encoded before.
    fileprivate mutating func append(_ document: [UInt8]) throws(CodecError) {
        try unsafe document.withUnsafeBufferPointer { bytes throws(CodecError) in
            try unsafe self.append(UnsafeRawBufferPointer(bytes))
        }
    }
}

/// How far a worker goes with one request of many items; a value, to be asked before each.
struct ChunkPace: Sendable {
    private let answerBytes: Int
    private let deadline: Instant
    private var isOver = false

    init(_ request: ChunkRequest, from now: Instant) {
        self.answerBytes = Int(clamping: request.answerBytes)
        let (nanoseconds, overflow) = request.microseconds.multipliedReportingOverflow(by: 1000)
        self.deadline = overflow ? .distantFuture : now.advanced(byNanoseconds: nanoseconds)
    }

    /// Whether another item is begun; the first always is.
    ///
    /// The clock is looked at before the items 1, 2, 4, 8 and so on: it costs as much as a quick item, and what went on for so
    /// long may go on for as long again.
    ///
    /// - Parameters:
    ///   - index: Which item would be next.
    ///   - byteCount: How many bytes of answers there are.
    ///   - now: Reads the clock.
    /// - Returns: False if the rest goes back.
    mutating func goesOn(to index: Int, byteCount: Int, now: () -> Instant) -> Bool {
        guard index > 0 else { return true }
        if self.isOver { return false }
        self.isOver = byteCount >= self.answerBytes || (index & (index - 1) == 0 && now() >= self.deadline)
        return !self.isOver
    }
}

/// The run of one request of many items.
private struct ChunkRun: Sendable {
    private let request: ChunkRequest
    private let limits: CodecLimits
    private let core: WorkerCore
    /// Gives callbacks among the arguments their way to the client.
    private let provider: any CallbackLinkProvider
    private let function: String
    private var pace: ChunkPace

    init(_ reader: inout PackReader, function: String) throws {
        guard let provider = reader.context as? any CallbackLinkProvider else {
            throw UsageError(.outsideHandler, "many calls in one request were given to \(function) outside a worker")
        }
        do throws(CodecError) {
            self.request = try ChunkRequest(reading: &reader)
        } catch {
            throw ArgumentError(cause: error)
        }
        self.limits = reader.limits
        self.core = provider.worker
        self.provider = provider
        self.function = function
        self.pace = ChunkPace(self.request, from: provider.worker.now())
    }

    /// Runs the items of a synchronous handler.
    mutating func runAll(
        _ reader: borrowing PackReader,
        into writer: inout PackWriter,
        isCancelled: () -> Bool,
        _ body: (inout PackReader, inout PackWriter) throws -> Void
    ) throws {
        var value = PackWriter(capacity: 256, limits: self.limits)
        try self.answer(&writer) { writer throws(CodecError) in
            try writer.packArrayHeader(self.request.items.count)
        }
        for (index, item) in self.request.items.enumerated() {
            let core = self.core
            guard !isCancelled(), self.pace.goesOn(to: index, byteCount: writer.count, now: { core.now() }) else {
                try self.answer(&writer) { writer throws(CodecError) in try writer.packNil() }
                continue
            }
            do {
                try reader.withPart(item) { part in try body(&part, &value) }
                try self.add(value, to: &writer)
            } catch {
                try self.add(error, to: &writer)
            }
            value.removeAll()
        }
    }

    /// Runs the items of an asynchronous handler.
    ///
    /// - Returns: The answer, encoded.
    mutating func runAll(
        _ arguments: [[UInt8]],
        _ context: JobContext,
        _ body: Handler.AsyncBody
    ) async throws -> [UInt8] {
        var writer = PackWriter(capacity: 256, limits: self.limits)
        try self.answer(&writer) { writer throws(CodecError) in try writer.packArrayHeader(arguments.count) }
        for (index, item) in arguments.enumerated() {
            let core = self.core
            guard !context.isCancelled, self.pace.goesOn(to: index, byteCount: writer.count, now: { core.now() }) else {
                try self.answer(&writer) { writer throws(CodecError) in try writer.packNil() }
                continue
            }
            do {
                let provider = self.provider
                let work = try withPackReader(over: item, limits: self.limits) { reader in
                    reader.context = provider
                    return try body(&reader, context)
                }
                let pack = try await work()
                var value = PackWriter(capacity: 256, limits: self.limits)
                do throws(CodecError) { try pack(&value) } catch { throw ResultError(cause: error) }
                try self.add(value, to: &writer)
            } catch {
                try self.add(error, to: &writer)
            }
        }
        return unsafe writer.withBytes { bytes in unsafe [UInt8](bytes) }
    }

    /// The arguments of all items, for who can't stay with the reader.
    func arguments(in reader: borrowing PackReader) -> [[UInt8]] {
        self.request.items.map { item in
            reader.withPart(item) { part in unsafe part.takeRest { bytes in unsafe [UInt8](bytes) } }
        }
    }

    /// Answers an item with its value.
    private func add(_ value: borrowing PackWriter, to writer: inout PackWriter) throws {
        let start = writer.count
        do throws(CodecError) {
            try unsafe value.withBytes { bytes throws(CodecError) in try unsafe writer.pack(bytes) }
        } catch {
            writer.rollBack(to: start)
            throw ResultError(cause: error)
        }
    }

    /// Answers an item with what its handler threw.
    private func add(_ error: any Error, to writer: inout PackWriter) throws {
        let body = self.core.errorBody(error, function: self.function)
        try self.answer(&writer) { writer throws(CodecError) in try body.pack(into: &writer) }
    }

    /// Writes to the answer of all.
    ///
    /// - Throws: ``ResultError`` if it doesn't take it: then the request as a whole fails.
    private func answer(
        _ writer: inout PackWriter,
        _ body: (inout PackWriter) throws(CodecError) -> Void
    ) throws {
        do throws(CodecError) { try body(&writer) } catch { throw ResultError(cause: error) }
    }
}
