// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Synchronization

extension ClientCore {
    /// Whether this thread is the poller or runs callbacks: it must not wait for the poller to leave.
    var isOwnThread: Bool {
        self.pollerThread.load(ordering: .relaxed) == ThreadID.current.number || self.callbackThread?.isCurrent ?? false
    }

    /// The last thing a client does: what callers posted too late is lost, subscriptions end, the callback thread leaves.
    func finishClosing() {
        guard self.move(from: .closing, to: .closed) else { return }
        self.losePosted()
        for subscription in self.subscriptions.removeAll() { subscription.end() }
        self.callbackThread?.stop()
    }

    /// Closes a client whose poller was stopped.
    func loseAllWithoutPoller() {
        let handles = self.callTable.withLock { callTable -> [AnyAsyncResult] in
            // The call table is not put back: a closed client has no use for it.
            guard var taken = callTable.take() else { return [] }
            let open = taken.openHandles
            _ = taken.machine.closed()
            return open
        }
        for handle in handles { self.lose(handle) }
        self.losePosted()
    }

    /// Ends what was posted when the poller was gone: a handle that is left there holds its client, and so the mailbox
    /// that it lies in.
    func losePosted() {
        var submissions = self.submissions.takeRest()
        while let result = submissions.next() { self.lose(result) }
        var commands = self.commands.takeRest()
        while let command = commands.next() {
            if case .answer(_, var block, _) = command.kind { block.free() }
        }
    }

    func lose(_ result: AnyAsyncResult) {
        self.notifications.begin()
        defer { self.notifications.end() }
        guard let waiting = result.settle(.lost, failure: .connection(self.closedError.of(callIn: result.lastPhase)))
        else { return }
        self.callEnded(result, as: .lost)
        waiting.wake(for: result)
    }

    /// Asks for a sign of life.
    func startPing(_ kind: AnyAsyncResult.Kind, expiry: Duration) throws -> AsyncResult<WorkerStatus> {
        try self.checkOpen()
        // A ping takes no place: it must get through when the client is full.
        self.takePlaceRegardless()
        let request = EncodedRequest(
            block: RequestBytes(),
            hasMetadata: false,
            references: [],
            kind: kind
        )
        let ticket = self.ticket(for: request, of: self.pingInfo, options: CallOptions(), expiry: expiry)
        let result = AsyncResult<WorkerStatus>(ticket) { (result, reader: inout PackReader) throws(CodecError) in
            let status = try WorkerStatus.unpack(from: &reader)
            try reader.expectEnd()
            result.store(status)
        }
        self.start(result)
        return result
    }
}
