// SPDX-License-Identifier: Apache-2.0

internal import DroverWire
internal import DroverZMQ
internal import Synchronization

/// What a client's callback will answer to a handler that called it.
final class PendingReply: Sendable {
    private enum State: Sendable {
        case pending(Resumption<Void>?)
        case ended(Result<[UInt8], any Error>)
    }

    private let state = Mutex(State.pending(nil))
    private let ready = ReadySignal<Void>()

    func finish(_ result: Result<[UInt8], any Error>) {
        let continuation = self.state.withLock { state -> Resumption<Void>? in
            guard case .pending(let continuation) = state else { return nil }
            state = .ended(result)
            return continuation
        }
        _ = self.ready.set(())
        continuation?.resume()
    }

    /// Suspends until the answer is there.
    func result() async throws -> [UInt8] {
        await withTaskCancellationHandler {
            await withResumption { continuation in
                let isOver = self.state.withLock { state in
                    guard case .pending = state else { return true }
                    state = .pending(continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            self.finish(.failure(CancellationError()))
        }
        return try self.outcome()
    }

    /// Blocks until the answer is there.
    @available(*, noasync)
    func waitForResult() throws -> [UInt8] {
        self.ready.wait()
        return try self.outcome()
    }

    private func outcome() throws -> [UInt8] {
        let state = self.state.withLock { $0 }
        guard case .ended(let result) = state else { throw CancellationError() }
        return try result.get()
    }
}

/// The answers that handlers wait for.
final class ReplyTable: Sendable {
    private struct Entry: Sendable {
        /// Who answers: the client, or the broker that it is behind.
        let peer: PeerID
        let client: PeerID
        let subscription: SubscriptionID
        let reply: PendingReply
        /// Which of the peer's connections it was sent by; 0 before that.
        var connection: UInt32 = 0
    }

    private struct State: Sendable {
        var entries: [UInt64: Entry] = [:]
        var lastID: UInt64 = 0
    }

    private let state = Mutex(State())

    var count: Int { self.state.withLock { $0.entries.count } }

    func add(for subscriber: Subscriber) -> (UInt64, PendingReply) {
        self.state.withLock { state in
            state.lastID += 1
            let reply = PendingReply()
            state.entries[state.lastID] = Entry(
                peer: subscriber.peer,
                client: subscriber.client,
                subscription: subscriber.subscription,
                reply: reply
            )
            return (state.lastID, reply)
        }
    }

    /// The answer to `id`, if this peer was asked.
    func take(_ id: UInt64, from peer: PeerID) -> PendingReply? {
        self.state.withLock { state in
            guard state.entries[id]?.peer == peer else { return nil }
            return state.entries.removeValue(forKey: id)?.reply
        }
    }

    /// A client was asked, by one of its connections.
    func sent(_ id: UInt64, by connection: UInt32) {
        self.state.withLock { $0.entries[id]?.connection = connection }
    }

    /// A peer whose session went on by `connection` says that it works on some of its invocations.
    func arePending(_ ids: [UInt64], of peer: PeerID, connection: UInt32) {
        self.state.withLock { state in
            for id in ids where state.entries[id]?.peer == peer && state.entries[id]?.connection != 0 {
                state.entries[id]?.connection = connection
            }
        }
    }

    /// That was all.
    ///
    /// Others that went by a former connection were lost with it, or their answers were. Their waiters are told.
    func endLost(of peer: PeerID, before connection: UInt32) {
        let lost = self.state.withLock { state in
            let lost = state.entries.filter {
                $0.value.peer == peer && $0.value.connection != 0 && $0.value.connection != connection
            }
            for id in lost.keys { state.entries[id] = nil }
            return lost.values.map { ($0.reply, $0.subscription) }
        }
        for (reply, subscription) in lost { reply.finish(.failure(Subscriber.lost(subscription))) }
    }

    /// The worker stops: remaining waiters are told.
    func close() {
        let gone = self.state.withLock { state in
            defer { state.entries = [:] }
            return Array(state.entries.values)
        }
        for entry in gone { entry.reply.finish(.failure(Subscriber.gone(entry.subscription))) }
    }

    /// A peer is gone, or one subscription of a client: its waiters are told.
    func endAll(of peer: PeerID, client: PeerID? = nil, subscription: SubscriptionID? = nil) {
        let gone = self.state.withLock { state in
            let gone = state.entries.filter {
                $0.value.peer == peer && (client == nil || $0.value.client == client)
                    && (subscription == nil || $0.value.subscription == subscription)
            }
            for id in gone.keys { state.entries[id] = nil }
            return Array(gone.values)
        }
        for entry in gone { entry.reply.finish(.failure(Subscriber.gone(entry.subscription))) }
    }
}
