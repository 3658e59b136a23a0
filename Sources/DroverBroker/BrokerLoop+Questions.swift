// SPDX-License-Identifier: Apache-2.0

internal import Drover
internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import Synchronization

// Functions that the broker itself answers: their names begin with `drover.`.

extension BrokerLoop {
    /// What can be asked of a broker.
    enum Question: String {
        case status = "drover.status"
        case workers = "drover.workers"
        case queues = "drover.queues"
        /// A name that is the broker's and that it doesn't know.
        case unknown = "drover."

        /// Whether it tells of others' work: then it takes the right `admin`.
        var needsAdmin: Bool { self == .workers || self == .queues }
    }

    /// A client's number of one of the broker's own functions.
    struct QuestionKey: Hashable {
        let client: Int
        let number: UInt32
    }

    /// - Returns: Whether the name is the broker's.
    func defined(_ name: String, as number: UInt32, by client: Int) -> Bool {
        guard name.hasPrefix(Question.unknown.rawValue) else {
            if !self.questions.isEmpty { self.questions[QuestionKey(client: client, number: number)] = nil }
            return false
        }
        // As many as a client may define of other functions.
        if Int(number) < WireLimits.standard.maxFunctions {
            self.questions[QuestionKey(client: client, number: number)] = Question(rawValue: name) ?? .unknown
        }
        return true
    }

    /// - Returns: Whether the request was for the broker, and is answered.
    func answered(_ header: Header, of client: Int) -> Bool {
        guard !self.questions.isEmpty,
            let question = self.questions[QuestionKey(client: client, number: header.number)],
            let link = self.clientLinks[client]
        else { return false }
        if question.needsAdmin, let access = link.access, !self.mayAsk(question, access, header.id, client) {
            return true
        }
        let payload: [UInt8]
        switch question {
        case .status: payload = packed { writer throws(CodecError) in try packValue(self.status, into: &writer) }
        case .workers:
            payload = packed { writer throws(CodecError) in try packValue(self.workerStatus, into: &writer) }
        case .queues: payload = packed { writer throws(CodecError) in try packValue(self.queueStatus, into: &writer) }
        case .unknown:
            let message =
                "\(self.core.configuration.name) has no such function; names that begin with drover. are its own"
            self.refuse(header.id, .unknownFunction, message, to: client)
            return true
        }
        self.send(Header(.reply, id: header.id), payload, to: link)
        return true
    }

    func forgetQuestions(of client: Int) {
        if !self.questions.isEmpty { self.questions = self.questions.filter { $0.key.client != client } }
    }

    private var status: BrokerStatus {
        var status = BrokerStatus()
        let counters = self.core.statistics
        status.broker = self.core.configuration.name
        status.uptime = Double(self.now.nanoseconds(since: self.startedAt)) / 1e9
        status.clients = self.machine.clientCount
        status.workers = self.machine.workerCount
        status.slots = self.machine.workers.reduce(0) { $0 + ($1.isLive ? $1.offer.concurrency : 0) }
        status.queued = self.machine.queuedCount
        status.sent = self.machine.sentCount
        status.received = counters.received
        status.answered = counters.answered
        status.resent = counters.resent
        status.lost = counters.lost
        status.refused = counters.refused
        status.malformed = counters.malformed
        status.undeliverable = counters.undeliverable
        status.starved = Int(clamping: self.machine.starvedCount)
        status.isDraining = self.machine.isDraining
        return status
    }

    private var workerStatus: [BrokerWorkerStatus] {
        self.machine.workers.filter { $0.isLive }
            .map { worker in
                var status = BrokerWorkerStatus()
                status.name = worker.offer.name
                status.id = "\(worker.offer.worker)"
                status.state =
                    !worker.isOpen ? .away : worker.isDraining ? .draining : worker.isQuiet ? .quiet : .ready
                status.concurrency = worker.offer.concurrency
                status.calls = worker.outstanding
                status.credit = worker.credit
                status.functions = worker.offer.functions
                status.queues = worker.offer.queues.sorted()
                status.labels = worker.offer.labels
                status.resources = worker.offer.resources
                return status
            }
            .sorted { ($0.name, $0.id) < ($1.name, $1.id) }
    }

    private var queueStatus: [BrokerQueueStatus] {
        self.machine.routeViews.map { route in
            var status = BrokerQueueStatus()
            status.function = route.function
            status.queue = route.demands.queue
            status.labels = route.demands.labels
            status.resources = route.demands.resources
            status.waiting = route.waiting
            status.workers = route.workers
            return status
        }
    }
}
