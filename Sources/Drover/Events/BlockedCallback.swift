// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime
internal import DroverZMQ
internal import Logging
internal import Synchronization

/// A callback that blocks its thread for a call.
///
/// If the call's handler calls a callback of the same thread meanwhile, and waits for what it returns, the two wait for each
/// other.
final class BlockedCallback: Sendable {
    private let result: AnyAsyncResult
    private let queue: CallbackQueue
    private let waiter: Waiter.Key
    private let isCertain = Atomic<Bool>(false)

    init(_ result: AnyAsyncResult, waiter: Waiter.Key, in queue: CallbackQueue) {
        self.result = result
        self.queue = queue
        self.waiter = waiter
    }

    /// Whether the call's handler waits for this thread.
    var isDeadlock: Bool { self.isCertain.load(ordering: .acquiring) }

    /// A handler waits for a callback that waits for this thread.
    func isAsked(by subscription: Subscription) {
        if subscription.isOnly(in: self.result) {
            self.isCertain.store(true, ordering: .releasing)
            // Taking the waiter out wakes the thread; if it isn't there yet, the thread looks once more.
            switch self.result.withdraw(self.waiter) {
            case .thread(let parker): parker.unpark()
            case .task(_, let resumption): resumption.resume(returning: .ended)
            default: break
            }
            return
        }
        let client = self.result.client
        let id = self.result.correlationID.rawValue
        guard client.askedBack.withLock({ $0.insert(id).inserted }) else { return }
        client.logger.warning(
            "a handler calls a callback that waits for the thread of another, which waits for a call",
            metadata: [
                LogKeys.subscription: "\(subscription.id)", LogKeys.function: "\(self.result.functionName)",
                LogKeys.correlationID: "\(id)",
            ]
        )
    }

    /// The call has ended, or the wait for it.
    func end() {
        self.queue.unblock()
        _ = self.result.client.askedBack.withLock { $0.remove(self.result.correlationID.rawValue) }
    }
}
