// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

// Large answers are kept until their clients have read them: a connection that breaks costs none.

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
            // It is in a frame that is used again.
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

    /// - Returns: Whether it goes in parts.
    private func send(_ answer: LargeAnswer, by link: PeerLink) -> Bool {
        var header = answer.header
        if link.line.takes(header.kind, payloadCount: Int(header.payloadLength)) || link.line.keepsOrder {
            if !link.line.isSending { self.sendingParts.append(link) }
            link.line.add(header, deadline: nil, answer.source, isBehindEvents: answer.isBehindEvents)
            return true
        }
        header.flags.insert(.attached)
        link.batch.append(header)
        self.put(link.batch.take(&self.frames), attached: answer.payload(), on: link)
        return false
    }

    /// Answers a request that was sent again, if its answer is kept because of its size.
    ///
    /// - Returns: Whether it is: then the request is done with.
    func answerAgain(_ id: UInt64, _ client: Int) -> Bool {
        guard let link = self.clientLinks[client], let kept = link.kept else { return false }
        switch kept.find(id) {
        case .nothing: return false
        case .isOnItsWay: return true
        case .kept(let answer):
            // It may have introduced itself again with another limit.
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

    /// A client has a part: the last of an answer, perhaps.
    func partTaken(_ header: Header, _ client: Int) {
        guard let link = self.clientLinks[client] else { return }
        if let id = link.line.acknowledged(header, at: self.now), link.kept?.settled(id) == true {
            self.gaveUp(id, client)
        }
    }

    /// Asks a client whether it has read what it was sent, if it is time for that.
    func askForKept(_ client: Int, isBeat: Bool = false) {
        guard client < self.clientLinks.count, let link = self.clientLinks[client], let kept = link.kept,
            kept.asks(isBeat: isBeat)
        else { return }
        kept.question = self.nextQuestion()
        self.send(Header(.ping, id: kept.question), to: link)
    }

    /// A client has read what it was asked about, if this is the answer to that.
    func keptRead(_ client: Int, _ nonce: UInt64) -> Bool {
        guard nonce != 0, let link = self.clientLinks[client], let kept = link.kept, kept.question == nonce else {
            return false
        }
        for id in kept.answered(isReceiving: link.line.isReceiving) { self.gaveUp(id, client) }
        self.askForKept(client)
        return true
    }

    /// A client wants an answer no more.
    func dropKept(_ id: UInt64, _ client: Int) {
        if self.clientLinks[client]?.kept?.drop(id) == true { self.gaveUp(id, client) }
    }

    /// An answer, with what it takes, is kept no longer.
    private func gaveUp(_ id: UInt64, _ client: Int) {
        // A copy of its request may be on its way in parts, and must not run.
        self.machine.forgetResult(id, of: client)
        // What it took is free soon.
        self.idle.worked(at: self.now)
    }

    /// There is no room for answers that their client may not have read.
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
                "drover.client": "\(known.name) \(known.client)", "drover.bytes": "\(self.kept.bytes)",
                "drover.count": "\(self.core.counters.forgottenAnswers.load(ordering: .relaxed))",
            ]
        )
    }
}
