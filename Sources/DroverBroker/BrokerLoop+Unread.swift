// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import Logging

// What clients don't read and what requests take: counting, asking, logging.

extension BrokerLoop {
    /// How many answers of the broker itself a client that doesn't read may get.
    private static let mostAnswersWhileHeldUp = 1 << 16

    /// Counts bytes sent to a client, which stay in this process until it reads them.
    func sent(_ count: Int, to link: PeerLink) {
        self.unreadBytes += count
        let isHeldUp = self.machine.clients[link.client].isHeldUp
        if link.unread.sent(count, limit: self.unreadLimit.perClient, isHeldUp: isHeldUp) { self.askHowFar(link) }
        self.lookAfter(link)
    }

    /// Asks a client whether it has read everything it was sent so far.
    private func askHowFar(_ link: PeerLink) {
        // Answers that wait behind a message in parts come after the question.
        if !link.line.keepsOrder { self.machine.askedAboutResults(of: link.client) }
        link.unreadQuestion = self.nextQuestion()
        self.send(Header(.ping, id: link.unreadQuestion), to: link)
    }

    /// A number for one of the broker's own questions.
    func nextQuestion() -> UInt64 {
        self.lastUnreadQuestion &+= 1
        // Workers' questions count from 1.
        return 1 << 63 | self.lastUnreadQuestion
    }

    /// Takes a client's answer to a question.
    ///
    /// - Returns: Whether it was the question about what the client has read.
    func hasRead(_ client: Int, _ nonce: UInt64) -> Bool {
        guard let link = self.clientLinks[client], link.unreadQuestion != 0, link.unreadQuestion == nonce else {
            return false
        }
        link.unreadQuestion = 0
        self.machine.resultsRead(of: client)
        let before = link.unread.bytes
        let isHeldUp = self.machine.clients[client].isHeldUp
        let asksAgain = link.unread.answered(limit: self.unreadLimit.perClient, isHeldUp: isHeldUp)
        self.unreadBytes -= before - link.unread.bytes
        if asksAgain { self.askHowFar(link) }
        return true
    }

    /// Resumes a client's session, either over the same connection, whose bytes are still on their way, or over another
    /// one.
    func resumed(_ link: PeerLink, isSameRoute: Bool) {
        self.machine.resultsRead(of: link.client, isLost: true)
        guard isSameRoute else { return self.forgetUnread(of: link) }
        link.unreadQuestion = 0
        let isHeldUp = self.machine.clients[link.client].isHeldUp
        if link.unread.questionLost(limit: self.unreadLimit.perClient, isHeldUp: isHeldUp) { self.askHowFar(link) }
    }

    /// Forgets what was sent to a client, which is gone along with the client or its earlier connection.
    func forgetUnread(of link: PeerLink) {
        self.unreadBytes -= link.unread.bytes
        link.unread = UnreadAnswers()
        link.unreadQuestion = 0
    }

    /// Makes a client's calls wait, or lets them go on, depending on how much it hasn't read.
    func lookAfter(_ link: PeerLink) {
        let unread = link.unread.bytes + link.line.unsentBytes
        let total = self.unreadBytes + self.unsent.bytes
        guard
            unread >= self.unreadLimit.perClient || total >= self.unreadLimit.inAll
                || !self.machine.heldUp.isEmpty, self.clientLinks[link.client] === link
        else { return }
        let reading = self.machine.hasUnread(
            unread,
            of: link.client,
            inAll: total,
            at: self.now,
            actions: &self.actions
        )
        guard reading == .isHeldUp else { return }
        link.answersWhileHeldUp = 0
        if link.unread.heldUp(limit: self.unreadLimit.perClient) { self.askHowFar(link) }
        self.core.counters.holdUps.countAlone()
        // A client that does read, but asks for a lot, may be held up many times per second.
        guard self.now >= self.nextHoldUpReport else { return }
        self.nextHoldUpReport = self.now.advanced(byNanoseconds: 1_000_000_000)
        let client = self.machine.clients[link.client]
        self.core.configuration.logger.warning(
            "calls of a client wait until it has read its answers",
            metadata: [
                LogKeys.client: "\(client.name) \(client.client)", LogKeys.bytes: "\(unread)",
                LogKeys.count: "\(self.machine.heldUp.count)",
            ]
        )
    }

    /// Lets the calls of clients that have read enough go on, and performs the actions that sending added.
    func lookAfterReaders() {
        for client in self.machine.heldUp {
            if let link = self.clientLinks[client] { self.lookAfter(link) }
        }
        guard !self.actions.isEmpty else { return }
        self.performActions()
        self.flushDirty()
    }

    /// Whether the broker may answer a client itself: a client that reads nothing gets only so many answers.
    func mayAnswerItself(_ client: Int) -> Bool {
        guard self.machine.clients[client].isHeldUp, let link = self.clientLinks[client] else { return true }
        link.answersWhileHeldUp += 1
        guard link.answersWhileHeldUp > Self.mostAnswersWhileHeldUp else { return true }
        self.giveUp(client, "\(link.answersWhileHeldUp) answers of the broker itself")
        return false
    }

    /// Ends the session of a client that reads nothing and keeps causing more answers that it doesn't read.
    private func giveUp(_ client: Int, _ reason: String) {
        self.core.counters.undeliverable.countAlone()
        let known = self.machine.clients[client]
        self.core.configuration.logger.warning(
            "a client that doesn't read its answers was given up",
            metadata: [LogKeys.client: "\(known.name) \(known.client)", LogKeys.reason: "\(reason)"]
        )
        self.machine.clientLeft(client, at: self.now, actions: &self.actions)
    }

    /// Refuses a request because there is no room for its bytes.
    func refuseForBytes(_ id: UInt64, own: Int, of client: Int, retryAfter milliseconds: UInt32) {
        let limit = self.core.configuration.roomForRequests
        let name = self.core.configuration.name
        let message =
            "\(name) keeps \(PeopleText.size(self.machine.keptBytes)) of calls, \(PeopleText.size(own)) of \(self.tenantName(of: client)), "
            + "and takes \(PeopleText.size(limit)), half of them of one unless its quota bytes says otherwise: wait for some of the "
            + "calls, send less at once, add workers, or raise maxQueuedBytes there; try again in \(milliseconds) ms"
        if self.now >= self.nextBytesReport {
            self.nextBytesReport = self.now.advanced(byNanoseconds: 1_000_000_000)
            self.core.configuration.logger.warning(
                "calls are refused: those that wait take as many bytes as they may",
                metadata: [
                    LogKeys.client: "\(self.machine.clients[client].name)",
                    LogKeys.bytes: "\(self.machine.keptBytes)", LogKeys.limit: "\(limit)",
                ]
            )
        }
        self.core.counters.refusedForBytes.countAlone()
        self.refuse(id, .busy, message, to: client, isRetryable: true, retryAfter: milliseconds)
    }
}
