// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec

/// Takes a handler's messages as long as there is room for them.
protocol RoomGiver: AnyObject, Sendable {
    /// Takes a message, if there is room for it; `waiter` is told when it is worth while to try again.
    ///
    /// - Returns: Whether it was taken: if not, or if it throws, the block is still the caller's.
    func take(_ block: RequestBytes, orTell waiter: PendingReply?) throws -> Bool
    /// A waiter need not be told any more.
    func forget(_ waiter: PendingReply)
    /// Somebody found no room.
    func heldBack()
}

extension RoomGiver {
    /// Gives a message if there is room for it; the block is freed if not.
    ///
    /// - Returns: Whether it was taken.
    func give(_ block: RequestBytes) throws -> Bool {
        try Self.freeing(block) {
            let isTaken = try self.take(block, orTell: nil)
            if !isTaken { self.heldBack() }
            return isTaken
        }
    }

    /// Gives a message, and blocks the thread until there is room for it.
    ///
    /// - Parameters:
    ///   - block: The message; it is freed if it isn't taken.
    ///   - context: The request that the handler works on, whose cancellation ends the wait; looked up only for that, since it costs
    ///     as much as the rest.
    /// - Throws: `CancellationError`, or an error that says that nobody takes it any more.
    @available(*, noasync)
    func giveBlocking(_ block: RequestBytes, for context: @autoclosure () -> JobContext?) throws {
        _ = try Self.freeing(block) {
            if try self.take(block, orTell: nil) { return true }
            self.heldBack()
            let context = context()
            while true {
                let waiter = PendingReply()
                if try self.take(block, orTell: waiter) { return true }
                defer { self.ended(waiter, context) }
                context?.begin(waiter)
                _ = try waiter.waitForResult()
            }
        }
    }

    /// As the blocking form, but suspends; it ends when the task is cancelled, too.
    func give(_ block: RequestBytes, for context: @autoclosure () -> JobContext?) async throws {
        do {
            if try self.take(block, orTell: nil) { return }
            self.heldBack()
            let context = context()
            while true {
                let waiter = PendingReply()
                if try self.take(block, orTell: waiter) { return }
                defer { self.ended(waiter, context) }
                context?.begin(waiter)
                _ = try await waiter.result()
            }
        } catch {
            var block = block
            block.free()
            throw error
        }
    }

    private func ended(_ waiter: PendingReply, _ context: JobContext?) {
        self.forget(waiter)
        context?.end(waiter)
    }

    private static func freeing(_ block: RequestBytes, unless isTaken: () throws -> Bool) throws -> Bool {
        var isOver = false
        defer {
            if !isOver {
                var block = block
                block.free()
            }
        }
        isOver = try isTaken()
        return isOver
    }
}

/// A way to a client's callback that knows the request which it was an argument of: when that is cancelled, what waits ends.
final class JobCallback: CallbackLink {
    private let subscriber: Subscriber
    // Weak, since a handler may keep a callback for longer than its request, and even its worker, lives.
    private weak let context: JobContext?

    init(_ subscriber: Subscriber, for context: JobContext?) {
        self.subscriber = subscriber
        self.context = context
    }

    var codecLimits: CodecLimits { self.subscriber.codecLimits }

    func tryEmit(_ block: RequestBytes) throws -> Bool { try self.subscriber.give(block) }

    @available(*, noasync)
    func emitBlocking(_ block: RequestBytes) throws { try self.subscriber.giveBlocking(block, for: self.context) }

    func emit(_ block: RequestBytes) async throws { try await self.subscriber.give(block, for: self.context) }

    func invoke(_ block: RequestBytes) throws -> PendingReply { try self.subscriber.invoke(block) }

    func end() { self.subscriber.giveUp() }
}
