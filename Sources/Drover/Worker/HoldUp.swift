// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import Logging
internal import Synchronization

/// Whether a client's requests wait, since it doesn't read its answers.
///
/// Shared by the loop, which decides, and the handler threads, which put such a client's jobs aside.
final class HoldUp: Sendable {
    private let word = Atomic<Bool>(false)
    /// Bytes of answers that the loop has yet to take from handler threads.
    private let finished = Atomic<Int>(0)
    private let mostFinished: Int
    private let hasAside = Atomic<Bool>(false)

    init(mostFinished: Int) { self.mostFinished = mostFinished }

    /// The loop's word.
    var isOn: Bool {
        get { self.word.load(ordering: .acquiring) }
        set { self.word.store(newValue, ordering: .releasing) }
    }

    /// Whether a job must be put aside: the loop may not have come to see how much there is.
    func putsAside() -> Bool {
        if self.isOn { return true }
        guard self.finished.load(ordering: .relaxed) >= self.mostFinished else { return false }
        // One of the two sees the other: this looks again after it has said so, the loop looks after it has counted.
        self.hasAside.store(true, ordering: .sequentiallyConsistent)
        return self.finished.load(ordering: .sequentiallyConsistent) >= self.mostFinished
    }

    /// A handler thread has an answer for the loop.
    func hasFinished(_ bytes: Int) { self.finished.add(bytes, ordering: .relaxed) }

    /// The loop has taken an answer.
    ///
    /// - Returns: Whether jobs that were put aside may have waited for that.
    func took(_ bytes: Int) -> Bool {
        self.finished.subtract(bytes, ordering: .sequentiallyConsistent)
        return !self.isOn && self.hasAside.load(ordering: .sequentiallyConsistent)
    }

    /// Jobs that were put aside are about to be taken back.
    func goesOn() { self.hasAside.store(false, ordering: .sequentiallyConsistent) }
}

extension WorkerLoop {
    /// An answer goes to a client; one that has left too much unread is held up.
    func sentAnswer(_ count: Int, by link: WorkerLink, _ session: Int) {
        guard link.broker == nil else { return }
        let isHeldUp = link.holdUp.isOn
        if link.unread.sent(count, limit: self.unreadLimit.perClient, isHeldUp: isHeldUp) {
            self.askForAnswers(link, session)
        }
        self.unreadBytes += count
        guard !link.holdUp.isOn, self.mustWait(link) else { return }
        link.holdUp.isOn = true
        self.heldUp.insert(session)
        if link.unread.heldUp(limit: self.unreadLimit.perClient) { self.askForAnswers(link, session) }
        self.core.counters.heldUp.count()
        // One that reads, and asks for much, may be held up many times a second.
        guard self.now >= self.nextHoldUpReport else { return }
        self.nextHoldUpReport = self.now.advanced(byNanoseconds: 1_000_000_000)
        self.core.logger.warning(
            "requests of a client wait until it has read its answers",
            metadata: [
                LogKeys.client: "\(self.machine.sessions[session].client)", LogKeys.bytes: "\(self.unread(of: link))",
            ]
        )
    }

    /// Asks a client whether it has read the answers that it was sent so far.
    private func askForAnswers(_ link: WorkerLink, _ session: Int) {
        // Answers that wait for what goes in parts come behind the question.
        if !link.line.keepsOrder { self.machine.askedAboutResults(of: session) }
        link.answersQuestion = link.questions.nextNonce()
        link.out.batch.append(Header(.ping, id: link.answersQuestion))
        self.appended(to: link, session)
    }

    /// A client has read its answers, as far as it was asked about them; if this is the answer to that.
    func answersRead(_ nonce: UInt64, by link: WorkerLink, _ session: Int) -> Bool {
        guard nonce == link.answersQuestion else { return false }
        link.answersQuestion = 0
        self.machine.resultsRead(of: session)
        let before = link.unread.bytes
        defer { self.unreadBytes -= before - link.unread.bytes }
        if link.unread.answered(limit: self.unreadLimit.perClient, isHeldUp: link.holdUp.isOn) {
            self.askForAnswers(link, session)
        }
        return true
    }

    /// Lets the requests of those go on who have read enough.
    func letGoOn() {
        for session in self.heldUp {
            guard session < self.links.count, let link = self.links[session] else {
                self.heldUp.remove(session)
                continue
            }
            guard !self.mustWait(link) else { continue }
            self.heldUp.remove(session)
            self.release(link)
        }
    }

    /// What a client was sent is gone with it, or with its former connection.
    func forgetUnread(of link: WorkerLink) {
        self.unreadBytes -= link.unread.bytes
        link.unread = UnreadAnswers()
        link.answersQuestion = 0
    }

    /// Lets the requests of a client run, or end if it is gone.
    func release(_ link: WorkerLink) {
        link.holdUp.isOn = false
        self.core.threads.resume(link.holdUp, core: self.core)
    }

    private func unread(of link: WorkerLink) -> Int { link.unread.bytes + link.line.unsentBytes }

    private func mustWait(_ link: WorkerLink) -> Bool {
        self.unreadLimit.mustWait(
            unread: self.unread(of: link),
            total: self.unreadBytes + self.unsent.bytes,
            clients: self.machine.sessionCount,
            isHeldUp: link.holdUp.isOn
        )
    }
}
