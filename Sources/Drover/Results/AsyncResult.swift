// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import Synchronization

/// What a call will come to: polled, waited for, awaited, given an expiry, cancelled, called back.
///
/// ```swift
/// let result = try client.function(.checksum).async("/etc/hosts")
/// result.addCallback { print($0.outcome as Any) }
/// result.setExpiry(.seconds(5))
/// let digest = try await result.value
/// ```
///
/// Dropping a handle cancels nothing: the call goes on and its callbacks run (contract S8).
public final class AsyncResult<Value: Sendable>: AnyAsyncResult, @unchecked Sendable {
    private let decode: ResultDecoder<Value>
    /// Written once, under the lock of the class above and before its status; see there.
    private var stored: Value?

    init(
        id: UInt64,
        function: FunctionInfo,
        client: ClientCore,
        request: EncodedRequest,
        options: CallOptions,
        at now: Instant,
        limitNanoseconds: UInt64?,
        decode: @escaping ResultDecoder<Value>
    ) {
        self.decode = decode
        super
            .init(
                id: id,
                function: function,
                client: client,
                request: request,
                options: options,
                at: now,
                limitNanoseconds: limitNanoseconds
            )
    }

    /// What the call came to, or nil while it is pending.
    ///
    /// Costs no I/O and never blocks.
    public var outcome: Outcome<Value>? {
        switch self.currentStatus {
        case .pending: nil
        case .value: self.stored.map { .value($0) }
        case .cancelled: .cancelled
        case .failed, .expired, .lost:
            switch self.storedFailure {
            case .remote(let error): .failed(error)
            case .timeout(let error): .expired(error)
            case .connection(let error): .lost(error)
            case nil: .cancelled
            }
        }
    }

    override func settle(value payload: UnsafeRawBufferPointer) -> Waiting? {
        do {
            let value = try unsafe withPackReader(over: payload) { reader throws(CodecError) in
                reader.context = self.client
                let value = try self.decode(&reader)
                try reader.expectEnd()
                return value
            }
            return self.settle(.value) { self.stored = value }
        } catch {
            let message =
                "the reply to \(self.functionName) \(self.correlationID) is not a \(Value.self): \(error); "
                + "declare the function with the type that the worker returns"
            return self.settle(.lost, failure: .connection(ConnectionError(.protocol, message: message, cause: error)))
        }
    }
}

/// Turns a reply's payload into the value.
typealias ResultDecoder<Value> = @Sendable (inout PackReader) throws(CodecError) -> Value

/// Why a call ended without a value; boxed, to keep handles small.
indirect enum FailureBox: Sendable {
    case remote(RemoteError)
    case timeout(AsyncResultTimeout)
    case connection(ConnectionError)
}
