// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ

/// Who uses the client's loop: the poller while it is awake; while it sleeps, for an instant, a caller that sends its own
/// request.
///
/// A lone call would else wait for the poller to wake up, which takes longer than all the rest of its sending. The poller
/// sleeps on descriptors and touches nothing of the loop meanwhile.
///
/// `@unchecked Sendable`: `loop`, and all that belongs to it, is used only by the lock's holder.
final class LoopOwnership: @unchecked Sendable {
    private let lock = TurnLock()
    private var loop: ClientLoop?

    /// The poller begins to serve.
    @available(*, noasync)
    func take(_ loop: ClientLoop) {
        self.lock.acquire()
        self.loop = loop
    }

    /// The poller leaves for good.
    func leave() {
        self.loop = nil
        self.lock.release()
    }

    /// Lets callers have the loop while the poller sleeps in `body`, which must touch nothing of the loop but what only
    /// the poller uses.
    @available(*, noasync)
    func whileAway<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        self.lock.release()
        defer { self.lock.acquire() }
        try body()
    }

    /// Sends what was posted, on the caller's thread, if the poller sleeps.
    ///
    /// - Returns: False if somebody else has the loop, or if there is something that only the poller can do: then it must
    ///   be woken.
    func send() -> Bool {
        guard self.lock.tryToAcquire() else { return false }
        defer { self.lock.release() }
        return self.loop?.sendForCaller() ?? false
    }
}
