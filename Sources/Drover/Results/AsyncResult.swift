// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import Synchronization

/// The future outcome of a call: polled, waited for, awaited, given an expiry, cancelled, called back.
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
    @usableFromInline let readResult: ResultReader

    /// Inlinable, so that nothing of the result's type has to be looked up for each call.
    @inlinable
    init(_ ticket: consuming CallTicket, readResult: @escaping ResultReader) {
        self.readResult = readResult
        super.init(ticket)
    }

    deinit {
        guard self.currentStatus == .value else { return }
        var words = self.valueWords
        words.destroy(Value.self)
    }

    /// The call's outcome, or nil while it is pending.
    ///
    /// Costs no I/O and never blocks.
    public var outcome: Outcome<Value>? {
        switch self.currentStatus {
        case .pending: nil
        case .value: .value(self.stored)
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

    /// The value; only once the status is `value`.
    @inlinable var stored: Value { self.valueWords.load(as: Value.self) }

    override func settle(value payload: UnsafeRawBufferPointer, ran _: UInt32) -> Waiting? {
        var reader = unsafe PackReader(over: payload, limits: .received)
        do throws(CodecError) {
            var words = ValueWords()
            try self.readResult(&words, &reader)
            if let waiting = self.settle(.value, words: words) { return waiting }
            // It was cancelled meanwhile: nothing will ask for the value.
            words.destroy(Value.self)
            return nil
        } catch {
            let failure = self.unreadable(as: Value.self, error)
            return self.settle(failure.isOfType ? .failed : .lost, failure: failure)
        }
    }
}

extension AnyAsyncResult {
    /// Why a reply is no value of a type: it is one of another, or can't be understood at all.
    final func unreadable(as type: Any.Type, _ error: CodecError) -> FailureBox {
        guard error.isOfType else {
            let message = "the reply to \(self.functionName) \(self.correlationID) can't be understood: \(error)"
            return .connection(ConnectionError(.protocol, message: message, cause: error, execution: .ran))
        }
        return .remote(
            RemoteError(
                .badResult,
                message:
                    "the handler ran, but what it returned is not a \(type): \(error); declare the function with the type "
                    + "that the worker returns",
                worker: self.client.workerName(of: self.lastEndpoint),
                function: self.functionName,
                correlationID: self.correlationID
            )
        )
    }
}

/// Why a call ended without a value; boxed, to keep handles small.
indirect enum FailureBox: Sendable {
    case remote(RemoteError)
    case timeout(AsyncResultTimeout)
    case connection(ConnectionError)

    /// Whether the worker's answer was understood.
    var isOfType: Bool { if case .connection = self { false } else { true } }
}
