// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverRuntime
internal import DroverWire

/// Turns thrown errors into what travels, and back.
struct ErrorBody {
    private var payload = ErrorPayload()

    var message: String { self.payload.message }

    /// The peer doesn't allow this side's key, or not for this.
    var isForbidden: Bool { self.payload.code == RemoteError.Code.forbidden.name }

    /// The peer has no room at the moment.
    var isBusy: Bool { self.payload.code == RemoteError.Code.busy.name }

    /// The request never ran, since its time was over: the same as ``CancelledStage/lapsed``.
    var isLapse: Bool { self.payload.code == "lapsed" }

    /// The request never ran, since the peer stops; no handler's error has this code.
    var isDraining: Bool { self.payload.code == RemoteError.Code.draining.name }

    /// A broker says that the worker that had the call is lost.
    var isLoss: Bool { self.payload.code == "lost" }

    init(
        code: RemoteError.Code,
        message: String,
        isRetryable: Bool = false,
        execution: Execution? = nil,
        worker: String = ""
    ) {
        self.payload.ran = execution?.wireNumber
        self.payload.code = code.name
        self.payload.message = message
        self.payload.isRetryable = isRetryable
        self.payload.worker = worker
    }

    /// An error that a handler or a callback threw.
    ///
    /// - Parameters:
    ///   - error: What was thrown.
    ///   - hop: Where it was thrown, for the trace.
    ///   - worker: Who answers.
    init(thrown error: any Error, hop: String, worker: String = "") {
        self.payload.worker = worker
        self.payload.ran = Execution.ran.wireNumber
        switch error {
        case let error as RemoteError:
            // An error from another hop that was let through: keep what it says and add this hop.
            self.payload.code = RemoteError.Code.failed.name
            self.payload.type = error.type.isEmpty ? "RemoteError" : error.type
            self.payload.message = error.message
            self.payload.trace = error.trace.isEmpty ? hop : "\(error.trace)\n\(hop)"
            self.payload.isRetryable = error.isRetryable
            self.payload.details = error.details
            return
        case is CancellationError:
            self.payload.code = RemoteError.Code.cancelled.name
        case is CodecError:
            self.payload.code = RemoteError.Code.badArguments.name
        default:
            self.payload.code = RemoteError.Code.failed.name
        }
        self.payload.type = String(describing: Swift.type(of: error))
        self.payload.message = "\(error)"
        self.payload.trace = hop
        if let encodable = error as? any Encodable & Error {
            // An error that can't be encoded still travels as its description.
            self.payload.details = try? Self.encode(encodable)
        }
    }

    init?(reading payload: UnsafeRawBufferPointer) {
        // What can't be read is told apart by the caller; there is nothing more to say about it.
        guard let read = try? unsafe ErrorPayload(reading: payload) else { return nil }
        self.payload = read
    }

    private static func encode(_ value: some Encodable) throws(CodecError) -> [UInt8] {
        var writer = PackWriter(capacity: 64)
        try packValue(value, into: &writer)
        let block = writer.finish()
        return unsafe [UInt8](UnsafeRawBufferPointer(start: block.baseAddress, count: block.count))
    }

    /// The message with room for its header; one that is too large is shortened: of which code and type it is matters most.
    ///
    /// - Parameter limit: How many bytes who gets it takes.
    /// - Returns: The message.
    func packed(atMost limit: Int = .max) -> RequestBytes {
        if var bytes = try? Self.pack(self.payload) {
            if bytes.payloadCount <= limit { return bytes }
            bytes.free()
        }
        return (try? Self.pack(self.payload.shortened(toFit: limit))) ?? RequestBytes()
    }

    /// Writes the payload behind what the writer has.
    func pack(into writer: inout PackWriter) throws(CodecError) {
        try self.payload.pack(into: &writer)
    }

    private static func pack(_ payload: ErrorPayload) throws(CodecError) -> RequestBytes {
        var writer = PackWriter(capacity: 256, headerBytes: RequestBytes.headerByteCount)
        try payload.pack(into: &writer)
        return RequestBytes(adopting: writer.finish())
    }

    func error(of result: AnyAsyncResult) -> RemoteError {
        self.error(function: result.functionName, correlationID: result.correlationID)
    }

    func error(function: String, correlationID: CorrelationID) -> RemoteError {
        let retryAfter = self.payload.retryAfterMilliseconds
        var error = RemoteError(
            RemoteError.Code(name: self.payload.code),
            type: self.payload.type,
            message: self.payload.message,
            trace: self.payload.trace,
            isRetryable: self.payload.isRetryable,
            retryAfter: retryAfter == 0 ? nil : .milliseconds(retryAfter),
            worker: self.payload.worker,
            function: function,
            correlationID: correlationID
        )
        error.details = self.payload.details
        if let execution = Execution(wire: self.payload.ran) { error.execution = execution }
        error.attempts = Int(clamping: self.payload.attempts)
        error.workers = self.payload.workers
        return error
    }
}

extension Hello {
    /// The message with room for its header.
    func packed() -> RequestBytes {
        var writer = PackWriter(capacity: 128, headerBytes: RequestBytes.headerByteCount)
        // Names are cut to length, so a handshake always fits.
        try? self.pack(into: &writer)
        return RequestBytes(adopting: writer.finish())
    }
}
