// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// Large answers are kept until they have been read: a connection that breaks costs none.

extension WorkerLoop {
    /// Sends a large answer, and keeps it by reference.
    func answerLargely(_ header: Header, _ block: RequestBytes, to session: Int, isBehindEvents: Bool) {
        var block = block
        guard let link = self.links[session], let shared = block.share() else {
            self.core.counters.undeliverable.count()
            return block.free()
        }
        let source = unsafe PartSource(shared.base + Header.byteCount, owner: shared)
        let answer = LargeAnswer(header, source, isBehindEvents: isBehindEvents)
        let inParts = self.send(block, as: header, to: session, isBehindEvents: isBehindEvents, isKept: true)
        let forgotten = link.kept.keep(answer, inParts: inParts, clients: self.machine.sessionCount)
        if !forgotten.isEmpty { self.forget(forgotten, session) }
        self.askForKept(session)
        self.sentAnswer(inParts ? 0 : answer.count, by: link, session)
    }

    /// Answers a request that was sent again, if its answer is kept because of its size.
    ///
    /// - Returns: Whether it is: then the request is done with.
    func answerAgain(_ id: UInt64, _ session: Int) -> Bool {
        guard let link = self.links[session] else { return false }
        switch link.kept.find(id) {
        case .nothing: return false
        case .isOnItsWay: return true
        case .kept(let answer):
            // It may have introduced itself again with another limit.
            guard Int(answer.header.payloadLength) <= link.maxPayloadBytes else {
                self.dropKept(id, session)
                return false
            }
            self.core.counters.answeredAgain.count()
            let inParts = self.sendAgain(answer, by: link, session)
            link.kept.sentAgain(id, inParts: inParts)
            self.askForKept(session)
            self.sentAnswer(inParts ? 0 : answer.count, by: link, session)
            return true
        }
    }

    /// - Returns: Whether it goes in parts.
    private func sendAgain(_ answer: LargeAnswer, by link: WorkerLink, _ session: Int) -> Bool {
        var header = answer.header
        link.line.cancelAnswer(header.id)
        if link.line.takes(header.kind, payloadCount: Int(header.payloadLength)) || link.line.keepsOrder {
            if !link.line.isSending { self.sendingParts.append(session) }
            link.line.add(header, deadline: nil, answer.source, isBehindEvents: answer.isBehindEvents)
            return true
        }
        header.flags.insert(.attached)
        link.out.batch.append(header)
        self.put(link.out.batch.take(&self.port.frames), attached: answer.payload(), on: link, session)
        return false
    }

    /// The peer has a part: the last of an answer, perhaps.
    func partTaken(_ header: Header, _ session: Int) {
        guard let link = self.links[session] else { return }
        if let id = link.line.acknowledged(header, at: self.now), link.kept.settled(id) { self.gaveUp(id, session) }
    }

    /// Asks a client whether it has read what it was sent, if it is time for that.
    func askForKept(_ session: Int, isBeat: Bool = false) {
        guard let link = self.links[session], link.kept.asks(isBeat: isBeat) else { return }
        link.kept.question = link.questions.nextNonce()
        link.out.batch.append(Header(.ping, id: link.kept.question))
        self.appended(to: link, session)
    }

    /// A client has read what it was asked about, if this is the answer to that.
    func keptRead(_ nonce: UInt64, by link: WorkerLink, _ session: Int) -> Bool {
        guard nonce == link.kept.question, nonce != 0 else { return false }
        for id in link.kept.answered(isReceiving: link.line.isReceiving) { self.gaveUp(id, session) }
        self.askForKept(session)
        return true
    }

    /// A client wants an answer no more.
    func dropKept(_ id: UInt64, _ session: Int) {
        if let link = self.links[session], link.kept.drop(id) { self.gaveUp(id, session) }
    }

    /// An answer, with what it takes, is kept no longer.
    private func gaveUp(_ id: UInt64, _ session: Int) {
        // A copy of its request may be on its way in parts, and must not run.
        self.machine.forgetResult(id, of: session)
        // What it took is free soon.
        self.idle.worked(at: self.now)
        self.nextTick = min(self.nextTick, self.idle.nextDeadline)
    }

    /// There is no room for answers that their client may not have read.
    private func forget(_ ids: [UInt64], _ session: Int) {
        for id in ids { self.machine.forgetResult(id, of: session) }
        self.core.counters.forgottenAnswers.count(ids.count)
        guard self.now >= self.nextForgottenReport else { return }
        self.nextForgottenReport = self.now.advanced(byNanoseconds: 1_000_000_000)
        self.core.logger.warning(
            "answers that a client may not have read are kept no longer; raise maxUnreadBytes, or let it ask for less",
            metadata: [
                LogKeys.client: "\(self.machine.sessions[session].client)", LogKeys.bytes: "\(self.kept.bytes)",
                LogKeys.count: "\(self.core.counters.forgottenAnswers.current)",
            ]
        )
    }
}
