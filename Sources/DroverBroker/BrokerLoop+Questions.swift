// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import Logging
internal import Synchronization

// The functions that the broker answers itself: their names begin with `drover.`.

extension BrokerLoop {
    /// What a broker can be asked.
    enum Question: String {
        case status = "drover.status"
        case workers = "drover.workers"
        case queues = "drover.queues"
        case why = "drover.why"
        case calls = "drover.calls"
        case serving = "drover.serving"
        case order = "drover.order"
        case cancel = "drover.cancel"
        /// Any other name with the broker's prefix.
        case unknown = "drover."

        /// Whether the question changes something rather than only looking.
        var isAct: Bool { self == .order || self == .cancel }

        /// The right that the question takes, if it concerns other clients' work.
        var right: AccessRights? {
            switch self {
            case .status, .serving, .unknown: nil
            case .cancel: .cancel
            case .workers, .queues, .why, .calls, .order: .admin
            }
        }
    }

    /// The number that a client gave one of the broker's own functions.
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
        // The same limit as for a client's other functions.
        if Int(number) < WireLimits.standard.maxFunctions {
            self.questions[QuestionKey(client: client, number: number)] = Question(rawValue: name) ?? .unknown
        }
        return true
    }

    /// - Returns: Whether the request was for the broker itself; if so, it has been dealt with.
    func answered(_ incoming: Incoming, of client: Int) -> Bool {
        let header = incoming.header
        guard !self.questions.isEmpty,
            let question = self.questions[QuestionKey(client: client, number: header.number)],
            let link = self.clientLinks[client]
        else { return false }
        guard self.mayAnswerItself(client) else { return true }
        guard header.contentType == ContentType.messagePack.rawValue else {
            let message = "\(question.rawValue) takes MessagePack alone, and no chunks"
            self.refuse(header.id, .unsupported, message, to: client)
            return true
        }
        if let right = question.right, let access = link.access,
            !self.mayAsk(question, right, access, header.id, client)
        {
            return true
        }
        self.publishCounts()
        let payload: [UInt8]
        do {
            switch question {
            case .status: payload = try self.answer(self.core.status)
            case .workers: payload = try self.answer(self.workerStatus)
            case .queues: payload = try self.answer(self.queueStatus)
            case .why:
                let id = try self.arguments(UInt64.self, of: incoming)
                let explanations = self.machine.explanations(of: id, most: Self.mostExplanations)
                payload = try self.answer(explanations.map { BrokerCallStatus(id, $0, at: self.now) })
            case .calls:
                let count = try self.arguments(UInt64.self, of: incoming)
                payload = try self.answer(self.oldestCalls(Int(clamping: min(count, 1000))))
            case .serving:
                let serving = self.machine.serving(try self.arguments(String.self, of: incoming))
                payload = try self.answer(["workers": serving.workers, "slots": serving.slots])
            case .order:
                let (name, order, grace) = try self.arguments(String.self, WorkerOrder.self, Double.self, of: incoming)
                payload = try self.answer(self.pass(order, to: name, grace: grace, for: self.actor(client, link)))
            case .cancel:
                let (id, owner) = try self.arguments(UInt64.self, String?.self, of: incoming)
                let known = self.machine.calls(known: id, to: owner)
                let actor = self.actor(client, link)
                // A client isn't told about calls that it may not cancel.
                let calls = known.filter { link.access?.grant.problem(cancelling: $0.function, in: $0.queue) == nil }
                if calls.isEmpty, let first = known.first,
                    let problem = link.access?.grant.problem(cancelling: first.function, in: first.queue)
                {
                    self.core.audit.refused(actor, question.rawValue, because: problem)
                    self.refuse(header.id, .forbidden, problem, to: client)
                    return true
                }
                if calls.isEmpty {
                    let target = "#\(id)" + (owner.map { " of \($0)" } ?? "")
                    self.core.audit.acted(actor, "cancel", on: target, outcome: "there is no such call")
                }
                if calls.count > 1 {
                    self.core.audit.acted(
                        actor,
                        "cancel",
                        on: "#\(id)",
                        outcome: "\(calls.count) clients have such a call"
                    )
                    self.refuse(header.id, .badArguments, self.ambiguous(id, calls), to: client)
                    return true
                }
                payload = try self.answer(calls.map { self.cancel(id, $0, for: actor) })
            case .unknown:
                let message =
                    "\(self.core.configuration.name) has no such function; names that begin with drover. are its own"
                self.refuse(header.id, .unknownFunction, message, to: client)
                return true
            }
        } catch {
            self.refuse(header.id, .badArguments, "\(question.rawValue) can't take this: \(error)", to: client)
            return true
        }
        self.send(Header(.reply, id: header.id), payload, to: link)
        return true
    }

    private func answer(_ value: some Encodable) throws -> [UInt8] {
        var writer = PackWriter(capacity: 256)
        try packValue(value, into: &writer)
        return unsafe writer.withBytes { unsafe [UInt8]($0) }
    }

    /// As many rows as fit in an answer; the last row says how many are left out.
    ///
    /// Peers choose the names that appear in these rows, so this bounds how much memory and time an answer can cost the
    /// broker.
    private func bounded<Row>(_ rows: [Row], byteCount: (Row) -> Int, mark: (inout Row, Int) -> Void) -> [Row] {
        var left = min(Self.mostAnswerBytes, self.core.configuration.maxPayloadBytes / 2)
        let fitting = rows.prefix { row in
            left -= byteCount(row)
            return left >= 0
        }
        var bounded = Array(fitting)
        guard bounded.count < rows.count, !bounded.isEmpty else { return bounded }
        mark(&bounded[bounded.count - 1], rows.count - bounded.count)
        return bounded
    }

    private static var mostAnswerBytes: Int { 4 << 20 }

    /// Roughly how many bytes the texts take in an answer.
    private static func byteCount(_ texts: some Sequence<String>) -> Int { texts.reduce(0) { $0 + 8 + $1.utf8.count } }

    private func arguments<each Argument: Decodable>(
        _ types: repeat (each Argument).Type,
        of incoming: Incoming
    ) throws -> (repeat each Argument) {
        var payload = unsafe incoming.payload
        guard payload.count <= WireLimits.maxQuestionBytes else {
            throw CodecError(
                .tooLarge,
                message: "a question has \(payload.count) bytes; \(WireLimits.maxQuestionBytes) is the limit"
            )
        }
        if incoming.header.flags.contains(.metadata) {
            let count = try unsafe RequestMetadata.read(from: payload).byteCount
            unsafe payload = UnsafeRawBufferPointer(rebasing: payload[count...])
        }
        return try unsafe withPackReader(over: payload, limits: .received) { reader throws(CodecError) in
            try unpackAllArguments(repeat each types, from: &reader)
        }
    }

    /// Says that several clients have a call with this id, and how to tell those apart.
    private func ambiguous(_ id: UInt64, _ calls: [BrokerMachine.KnownCall]) -> String {
        let owners = calls.prefix(5)
            .map { call in
                let client = self.machine.clients[call.client]
                return "\(client.name) (\(client.client))"
            }
        let more = calls.count > owners.count ? " and others" : ""
        return
            "\(calls.count) clients have a call #\(id): \(owners.joined(separator: ", "))\(more); say whose is meant, by "
            + "name or identity"
    }

    /// Cancels a call on behalf of an operator.
    private func cancel(
        _ id: UInt64,
        _ call: BrokerMachine.KnownCall,
        for actor: AuditLog.Actor
    ) -> BrokerCancelledCall {
        var cancelled = BrokerCancelledCall()
        cancelled.call = id
        cancelled.client = self.machine.clients[call.client].name
        cancelled.function = call.function
        cancelled.worker = call.worker
        self.machine.revoke(call, at: self.now, actions: &self.actions)
        self.core.audit.acted(
            actor,
            "cancel",
            on: "#\(id) of \(cancelled.client), \(call.function)",
            outcome: call.worker.map { "\($0) was asked to stop it" } ?? "it waited, and is over"
        )
        return cancelled
    }

    /// Passes an order on to all workers with a name, or to the one with an identity.
    ///
    /// - Returns: The identities of those workers.
    private func pass(
        _ order: WorkerOrder,
        to name: String,
        grace: Double,
        for actor: AuditLog.Actor
    ) -> [String] {
        let code: ControlOrder =
            switch order {
            case .quiet: .quiet
            case .resume: .resume
            case .stop: .stop
            }
        var told: [String] = []
        for index in self.machine.workers.indices where self.machine.workers[index].isLive {
            let offer = self.machine.workers[index].offer
            guard offer.name == name || "\(offer.worker)" == name else { continue }
            let time = UInt32(clamping: Int(max(0, min(grace, 1e6)) * 1000))
            self.send(Header(.control, time: time, number: code.rawValue), toWorker: index)
            let outcome = order == .stop ? "told, within \(time) ms" : "told"
            self.core.audit.acted(actor, order.rawValue, on: "\(offer.name) \(offer.worker)", outcome: outcome)
            told.append("\(offer.worker)")
        }
        if told.isEmpty {
            self.core.audit.acted(actor, order.rawValue, on: name, outcome: "no worker is called that")
        }
        return told
    }

    func forgetQuestions(of client: Int) {
        if !self.questions.isEmpty { self.questions = self.questions.filter { $0.key.client != client } }
    }

    /// How many calls with the same id are explained at once: the clients choose the ids.
    private static var mostExplanations: Int { 64 }

    private var workerStatus: [BrokerWorkerStatus] {
        let rows = self.machine.workers.indices.filter { self.machine.workers[$0].isLive }
            .map { index in
                let worker = self.machine.workers[index]
                let silence = worker.silentNanoseconds(at: self.now)
                var status = BrokerWorkerStatus()
                status.name = worker.offer.name
                status.id = "\(worker.offer.worker)"
                status.state =
                    !worker.isOpen
                    ? .away
                    : worker.isDraining ? .draining : worker.isQuiet || worker.isRefusing ? .quiet : .ready
                status.concurrency = worker.offer.concurrency
                status.stuck = worker.offer.stuck
                status.secondsSilent = Double(silence) / 1e9
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
        return self.bounded(rows) { row in
            512 + row.name.utf8.count + Self.byteCount(row.functions) + Self.byteCount(row.queues)
                + Self.byteCount(row.labels.keys) + Self.byteCount(row.labels.values)
                + Self.byteCount(row.resources.keys)
                + 8 * row.resources.count
        } mark: {
            $0.leftOut = $1
        }
    }

    private var queueStatus: [BrokerQueueStatus] {
        let rows = self.machine.routeViews(at: self.now)
            .map { route in
                var status = BrokerQueueStatus()
                status.function = route.function
                status.queue = route.demands.queue
                status.labels = route.demands.labels
                status.resources = route.demands.resources
                status.waiting = route.waiting
                status.workers = route.workers
                if let oldest = route.oldest {
                    status.oldestCall = oldest.id
                    status.oldestClient = oldest.client >= 0 ? self.machine.clients[oldest.client].name : nil
                    status.oldestSeconds = Double(oldest.milliseconds) / 1000
                }
                return status
            }
        return self.bounded(rows) { row in
            192 + Self.byteCount([row.function, row.queue, row.oldestClient ?? ""]) + Self.byteCount(row.labels.keys)
                + Self.byteCount(row.labels.values) + Self.byteCount(row.resources.keys) + 8 * row.resources.count
        } mark: {
            $0.leftOut = $1
        }
    }

    private func oldestCalls(_ count: Int) -> [BrokerCallStatus] {
        self.machine.oldestCalls(count, at: self.now)
            .compactMap { call in
                guard let explanation = self.machine.explanation(of: call.id, client: call.client) else { return nil }
                var status = BrokerCallStatus(call.id, explanation, at: self.now)
                status.secondsHere = Double(call.milliseconds) / 1000
                // A list only says which calls there are; `drover.why` says what keeps each worker from getting one of
                // them.
                status.candidates = []
                return status
            }
    }

    /// How many clients have only queried the broker itself.
    var onlookerCount: Int {
        guard !self.questions.isEmpty else { return 0 }
        return Set(self.questions.keys.map { $0.client })
            .count { self.machine.clients[$0].isLive && !self.machine.clients[$0].hasFunctions }
    }
}
