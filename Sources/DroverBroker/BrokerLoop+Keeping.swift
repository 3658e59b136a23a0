// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// Large answers are kept until their clients have read them, so that a broken connection loses none.

extension BrokerLoop {
    /// Sends a large answer on, and keeps it by reference.
    func answerLargely(
        _ header: Header,
        _ incoming: Incoming,
        of client: Int,
        by link: PeerLink,
        isBehindEvents: Bool
    ) {
        var header = header
        header.payloadLength = UInt32(unsafe incoming.payload.count)
        var (box, range) = (incoming.box, incoming.range)
        if box == nil {
            // The payload is in a frame that will be reused.
            box = unsafe MessageBox(Message(copying: incoming.payload))
            range = 0..<Int(header.payloadLength)
        }
        guard let box, let source = PartSource(range, of: box), let kept = link.kept else { return }
        let answer = LargeAnswer(header, source, isBehindEvents: isBehindEvents)
        let inParts = self.send(answer, by: link)
        let forgotten = kept.keep(answer, inParts: inParts, clients: self.machine.clientCount)
        if !forgotten.isEmpty { self.forget(forgotten, client) }
        self.askForKept(client)
    }

    /// - Returns: Whether it is sent in parts.
    private func send(_ answer: LargeAnswer, by link: PeerLink) -> Bool {
        var header = answer.header
        if link.line.takes(header.kind, payloadCount: Int(header.payloadLength)) || link.line.keepsOrder {
            if !link.line.isSending { self.sendingParts.append(link) }
            link.line.add(header, deadline: nil, answer.source, isBehindEvents: answer.isBehindEvents)
            return true
        }
        header.flags.insert(.attached)
        link.out.batch.append(header)
        self.put(link.out.batch.take(&self.port.frames), attached: answer.payload(), on: link)
        return false
    }

    /// Answers a request that was sent again, if its answer was large enough to be kept here.
    ///
    /// - Returns: Whether the answer is kept, in which case the request is dealt with.
    func answerAgain(_ id: UInt64, _ client: Int) -> Bool {
        guard let link = self.clientLinks[client], let kept = link.kept else { return false }
        switch kept.find(id) {
        case .nothing: return false
        case .isOnItsWay: return true
        case .kept(let answer):
            // The client may have introduced itself again with another limit.
            guard Int(answer.header.payloadLength) <= link.maxPayloadBytes else {
                self.dropKept(id, client)
                return false
            }
            link.line.cancelAnswer(id)
            kept.sentAgain(id, inParts: self.send(answer, by: link))
            self.askForKept(client)
            return true
        }
    }

    /// Notes that a client has received a part, perhaps the last of an answer.
    func partTaken(_ header: Header, _ client: Int) {
        guard let link = self.clientLinks[client] else { return }
        if let id = link.line.acknowledged(header, at: self.now), link.kept?.settled(id) == true {
            self.gaveUp(id, client)
        }
    }

    /// Asks a client whether it has read what it was sent, if it is time to.
    func askForKept(_ client: Int, isBeat: Bool = false) {
        guard client < self.clientLinks.count, let link = self.clientLinks[client], let kept = link.kept,
            kept.asks(isBeat: isBeat)
        else { return }
        kept.question = self.nextQuestion()
        self.send(Header(.ping, id: kept.question), to: link)
    }

    /// Takes a client's pong: if it answers the question asked here, the client has read what came before that
    /// question.
    func keptRead(_ client: Int, _ nonce: UInt64) -> Bool {
        guard nonce != 0, let link = self.clientLinks[client], let kept = link.kept, kept.question == nonce else {
            return false
        }
        for id in kept.answered(isReceiving: link.line.isReceiving) { self.gaveUp(id, client) }
        self.askForKept(client)
        return true
    }

    /// Drops an answer that its client no longer wants.
    func dropKept(_ id: UInt64, _ client: Int) {
        if self.clientLinks[client]?.kept?.drop(id) == true { self.gaveUp(id, client) }
    }

    /// Cleans up after an answer that is no longer kept.
    private func gaveUp(_ id: UInt64, _ client: Int) {
        // A copy of its request may be arriving in parts, and must not run.
        self.machine.forgetResult(id, of: client)
        // The memory it took is about to become free.
        self.idle.worked(at: self.now)
    }

    /// Forgets answers that their client may not have read, because there is no room for them.
    private func forget(_ ids: [UInt64], _ client: Int) {
        for id in ids {
            self.machine.forgetResult(id, of: client)
            self.core.counters.forgottenAnswers.countAlone()
        }
        guard self.now >= self.nextForgottenReport else { return }
        self.nextForgottenReport = self.now.advanced(byNanoseconds: 1_000_000_000)
        let known = self.machine.clients[client]
        self.core.configuration.logger.warning(
            "answers that a client may not have read are kept no longer; raise maxUnreadBytes, or let it ask for less",
            metadata: [
                LogKeys.client: "\(known.name) \(known.client)", LogKeys.bytes: "\(self.kept.bytes)",
                LogKeys.count: "\(self.core.counters.forgottenAnswers.load(ordering: .relaxed))",
            ]
        )
    }
}
