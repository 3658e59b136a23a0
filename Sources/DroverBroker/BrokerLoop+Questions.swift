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
        self.publishCounts()
        let payload: [UInt8]
        switch question {
        case .status: payload = packed { writer throws(CodecError) in try packValue(self.core.status, into: &writer) }
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

    private var workerStatus: [BrokerWorkerStatus] {
        self.machine.workers.indices.filter { self.machine.workers[$0].isLive }
            .map { index in
                let worker = self.machine.workers[index]
                var status = BrokerWorkerStatus()
                status.name = worker.offer.name
                status.id = "\(worker.offer.worker)"
                status.state =
                    !worker.isOpen
                    ? .away
                    : worker.isDraining ? .draining : worker.isQuiet || worker.isRefusing ? .quiet : .ready
                status.concurrency = worker.offer.concurrency
                status.calls = worker.outstanding
                status.credit = worker.credit
                status.answered = index < self.workerLinks.count ? self.workerLinks[index]?.answered ?? 0 : 0
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
