// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A registered result callback, to withdraw it.
public final class CallbackToken: Sendable {
    private let closure: Mutex<(@Sendable (AnyAsyncResult) throws -> Void)?>
    private let owner: Mutex<WeakResult>

    private struct WeakResult: Sendable { weak var result: AnyAsyncResult? }

    init(_ closure: @escaping @Sendable (AnyAsyncResult) throws -> Void, of result: AnyAsyncResult) {
        self.closure = Mutex(closure)
        self.owner = Mutex(WeakResult(result: result))
    }

    /// Withdraws the callback.
    ///
    /// - Returns: True if it had not started and never will; false if it ran, runs or was removed before.
    @discardableResult
    public func remove() -> Bool {
        guard self.take() != nil else { return false }
        _ = self.owner.withLock { $0.result }?.withdraw(.callback(self))
        return true
    }

    /// The closure, for the one who runs it: it is given out once, so it runs once (contract S43).
    func take() -> (@Sendable (AnyAsyncResult) throws -> Void)? {
        self.closure.withLock { closure in
            let taken = closure
            closure = nil
            return taken
        }
    }
}

extension AnyAsyncResult {
    final func register(_ closure: @escaping @Sendable (AnyAsyncResult) throws -> Void) -> CallbackToken {
        let token = CallbackToken(closure, of: self)
        if !self.add(.callback(token)) {
            // Ended already: it runs soon on the callback executor, never here (contract S47).
            self.client.callbacks.enqueue(self, token)
        }
        return token
    }
}

extension AsyncResult {
    /// Runs `body` once on the callback executor when the call has ended, in whatever way; at once if it has already.
    ///
    /// Callbacks of one handle run in the order of their registration. What a callback throws goes to the client's
    /// `onCallbackError` and harms nobody else. The closure is released after it ran.
    ///
    /// - Parameter body: Given this handle; its own value is there at once.
    /// - Returns: A token to withdraw the callback; it may be dropped.
    @discardableResult
    public func addCallback(_ body: @escaping @Sendable (AsyncResult<Value>) throws -> Void) -> CallbackToken {
        self.register { result in
            guard let result = result as? AsyncResult<Value> else { return }
            try body(result)
        }
    }

    /// Runs `body` once with the value or the error, on the callback executor, when the call has ended.
    ///
    /// - Parameter body: Given the value, or the error that ``get()`` would throw.
    /// - Returns: A token to withdraw the callback; it may be dropped.
    @discardableResult
    public func onCompletion(_ body: @escaping @Sendable (Result<Value, any Error>) throws -> Void) -> CallbackToken {
        self.addCallback { result in
            guard let outcome = result.outcome else { return }
            try body(Result { try outcome.get() })
        }
    }

    /// Runs `body` once if an answer came, a value or a remote error; never for an expiry, a cancellation or a loss.
    ///
    /// - Parameter body: Given this handle.
    /// - Returns: A token to withdraw the callback; it may be dropped.
    @discardableResult
    public func onReply(_ body: @escaping @Sendable (AsyncResult<Value>) throws -> Void) -> CallbackToken {
        self.addCallback { result in
            switch result.outcome {
            case .value, .failed: try body(result)
            case .expired, .cancelled, .lost, nil: break
            }
        }
    }
}
