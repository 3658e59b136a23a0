// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
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
    @usableFromInline var stored: Value?

    @usableFromInline
    init(_ ticket: consuming CallTicket, decode: @escaping ResultDecoder<Value>) {
        self.decode = decode
        super.init(ticket)
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

    /// The value, if that is what the call came to; spares the way by the outcome.
    @inlinable var readyValue: Value? { self.currentStatus == .value ? self.stored : nil }

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
@usableFromInline
typealias ResultDecoder<Value> = @Sendable (inout PackReader) throws(CodecError) -> Value

/// Why a call ended without a value; boxed, to keep handles small.
indirect enum FailureBox: Sendable {
    case remote(RemoteError)
    case timeout(AsyncResultTimeout)
    case connection(ConnectionError)
}
