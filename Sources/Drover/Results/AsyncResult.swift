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
    @usableFromInline let readResult: ResultReader<Value>
    /// Where the value is: here if it takes no more than two words, else behind the address that is here.
    ///
    /// Not an optional: to destroy one, its type would be looked up for each handle, in a table of the runtime. Instead
    /// the status says whether there is a value. Written by the poller alone, before the status that lets others read it;
    /// that is why exclusivity needn't be checked at run time.
    @safe @exclusivity(unchecked) @usableFromInline var storage: (UInt, UInt) = (0, 0)

    /// Inlinable, so that nothing of the result's type has to be looked up for each call.
    @inlinable
    init(_ ticket: consuming CallTicket, readResult: @escaping ResultReader<Value>) {
        self.readResult = readResult
        super.init(ticket)
    }

    deinit {
        if self.currentStatus == .value { self.discard() }
    }

    /// What the call came to, or nil while it is pending.
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

    @inlinable static var isStoredHere: Bool {
        MemoryLayout<Value>.size <= MemoryLayout<(UInt, UInt)>.size
            && MemoryLayout<Value>.alignment <= MemoryLayout<UInt>.alignment
    }

    /// The value; only once the status is `value`.
    ///
    /// Any number of threads may read it at once, so the words are read, and never held for a change.
    @inlinable var stored: Value {
        let words = self.storage
        return unsafe withUnsafeBytes(of: words) { words in
            if Self.isStoredHere { return unsafe words.load(as: Value.self) }
            return unsafe words.load(as: UnsafePointer<Value>.self).pointee
        }
    }

    /// Puts the value in its place, before the status says that it is there.
    @inlinable
    func store(_ value: Value) {
        unsafe withUnsafeMutableBytes(of: &self.storage) { words in
            guard let here = words.baseAddress else { return }
            if Self.isStoredHere {
                unsafe here.initializeMemory(as: Value.self, to: value)
            } else {
                let place = UnsafeMutablePointer<Value>.allocate(capacity: 1)
                unsafe place.initialize(to: value)
                unsafe here.storeBytes(of: place, as: UnsafeMutablePointer<Value>.self)
            }
        }
    }

    /// Destroys the value, which nobody can read any more.
    private func discard() {
        unsafe withUnsafeMutableBytes(of: &self.storage) { words in
            guard let here = words.baseAddress else { return }
            if Self.isStoredHere {
                unsafe here.assumingMemoryBound(to: Value.self).deinitialize(count: 1)
            } else {
                let place = unsafe here.load(as: UnsafeMutablePointer<Value>.self)
                unsafe place.deinitialize(count: 1)
                unsafe place.deallocate()
            }
        }
    }

    override func settle(value payload: UnsafeRawBufferPointer, ran _: UInt32) -> Waiting? {
        var reader = unsafe PackReader(over: payload, limits: .received)
        do throws(CodecError) {
            try self.readResult(self, &reader)
            if let waiting = self.settle(.value) { return waiting }
            // It was cancelled meanwhile: nobody will ask for the value.
            self.discard()
            return nil
        } catch {
            let message =
                "the reply to \(self.functionName) \(self.correlationID) is not a \(Value.self): \(error); "
                + "declare the function with the type that the worker returns"
            return self.settle(.lost, failure: .connection(ConnectionError(.protocol, message: message, cause: error)))
        }
    }
}

/// Reads a reply's payload, all of it, and stores the value in the handle.
@usableFromInline
typealias ResultReader<Value> = @Sendable (AsyncResult<Value>, inout PackReader) throws(CodecError) -> Void

/// Why a call ended without a value; boxed, to keep handles small.
indirect enum FailureBox: Sendable {
    case remote(RemoteError)
    case timeout(AsyncResultTimeout)
    case connection(ConnectionError)
}
