// SPDX-License-Identifier: Apache-2.0

/// Questions from workers whether a client has read what it was sent.
///
/// A worker keeps only a bounded amount in transit, and asks with a PING how far the client has read. If the broker
/// answered that itself, only the amount between worker and broker would be bounded, and any amount could pile up on
/// the way to a slow client. So it forwards the question, behind everything that the question follows, and passes the
/// answer back.
extension BrokerMachine {
    /// A question that a client has not answered.
    struct Question: Equatable, Sendable {
        /// What the question is about: there is one at a time for each subject, and a later one replaces it.
        struct Subject: Hashable, Sendable {
            var worker: Int
            var isProgress: Bool
            var number: UInt64
        }

        var subject: Subject
        var client: Int
        /// The worker's id for the question.
        var id: UInt64
    }

    /// A worker's question in the form in which its client is asked.
    package struct PassedQuestion: Equatable, Sendable {
        package let client: Int
        package let id: UInt64
        /// The stream that it follows there.
        package let stream: PartStream
        /// The number of the next event there, if it follows events.
        package var next: UInt64?
        /// For a statement about a subscription: whether a worker has ended it, and the client has yet to acknowledge
        /// that.
        package var isEnded = false
    }

    /// A worker asks whether the events of a subscription have been read.
    ///
    /// - Parameters:
    ///   - id: The worker's id for the question.
    ///   - number: The worker's number for the subscription.
    ///   - next: The number of its next event, if the worker gives it: any earlier event that has not arrived was lost.
    ///   - worker: The worker.
    /// - Returns: Which client to ask instead, and by which id; nil if there is none: then the worker is answered at
    ///   once.
    package mutating func questionReceived(
        _ id: UInt64,
        afterEventsOf number: UInt32,
        next: UInt64? = nil,
        from worker: Int
    ) -> PassedQuestion? {
        guard let binding = self.workers[worker].bindings[number] else { return nil }
        if let next { self.passed(number, upTo: next, of: worker) }
        let subject = Question.Subject(worker: worker, isProgress: false, number: UInt64(number))
        return PassedQuestion(
            client: binding.client,
            id: self.ask(binding.client, about: subject, id),
            stream: .subscription(binding.subscription),
            next: self.clients[binding.client].subscriptions[binding.subscription]?.next
        )
    }

    /// A worker asks whether a request's progress has been read.
    package mutating func questionReceived(
        _ id: UInt64,
        afterProgressOf request: UInt64,
        from worker: Int
    ) -> PassedQuestion? {
        guard let addressee = self.addressee(request, from: worker), let client = addressee.client else { return nil }
        let subject = Question.Subject(worker: worker, isProgress: true, number: request)
        return PassedQuestion(
            client: client,
            id: self.ask(client, about: subject, id),
            stream: .request(addressee.id)
        )
    }

    /// A question that the broker itself asks a client, only to say how many events there were: the answer doesn't
    /// matter.
    package mutating func statement(of subscription: UInt32, to client: Int) -> PassedQuestion? {
        guard let known = self.clients[client].subscriptions[subscription], known.next > 0 || known.isEnded else {
            return nil
        }
        self.lastQuestion += 1
        return PassedQuestion(
            client: client,
            id: self.lastQuestion,
            stream: .subscription(subscription),
            next: known.next,
            isEnded: known.isEnded
        )
    }

    /// What to tell a client about each subscription, before all else, when its session resumes over another
    /// connection.
    package mutating func statements(to client: Int) -> [PassedQuestion] {
        self.clients[client].subscriptions.keys.sorted().compactMap { self.statement(of: $0, to: client) }
    }

    /// A client has read what came before a question; returns nil if it was asked no such question.
    package mutating func questionAnswered(_ id: UInt64, by client: Int) -> (worker: Int, id: UInt64)? {
        guard let question = self.questions[id], question.client == client else { return nil }
        self.forgetQuestion(id)
        return (question.subject.worker, question.id)
    }

    private mutating func ask(_ client: Int, about subject: Question.Subject, _ id: UInt64) -> UInt64 {
        if let former = self.questionAbout[subject] { self.questions[former] = nil }
        self.lastQuestion += 1
        self.questions[self.lastQuestion] = Question(subject: subject, client: client, id: id)
        self.questionAbout[subject] = self.lastQuestion
        return self.lastQuestion
    }

    private mutating func forgetQuestion(_ id: UInt64) {
        guard let question = self.questions.removeValue(forKey: id) else { return }
        self.questionAbout[question.subject] = nil
    }

    /// A client is gone, or has another connection: whatever it was asked about, it has either read already or never
    /// will.
    mutating func answerQuestions(to client: Int, actions: inout [BrokerAction]) {
        for id in self.questions.filter({ $0.value.client == client }).keys.sorted() {
            guard let question = self.questions[id] else { continue }
            self.forgetQuestion(id)
            actions.append(.answerQuestion(worker: question.subject.worker, id: question.id))
        }
    }

    /// A worker is gone.
    mutating func dropQuestions(of worker: Int) {
        for id in self.questions.filter({ $0.value.subject.worker == worker }).keys { self.forgetQuestion(id) }
    }
}
