// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Logging

// Connections and sessions: how they begin, fail and end, and what users are told of it.

extension ClientLoop {
    @available(*, noasync)
    func welcome(_ welcome: Welcome, _ header: Header, from link: ClientLink) {
        // The answer to an introduction of a former session.
        if let answered = welcome.answeredEpoch, answered != link.epoch { return }
        link.accepted()
        link.forgetFunctions()
        link.connection = header.time
        link.line.welcomed(takesParts: welcome.takesParts, epoch: header.id, session: header.number)
        // Workers that don't say take what this client allows.
        link.maxPayloadBytes = welcome.maxPayloadBytes > 0 ? welcome.maxPayloadBytes : Int.max
        self.core.met(limit: link.maxPayloadBytes)
        self.core.setWorkerName(welcome.name, of: link.index, isBroker: welcome.isBroker)
        self.callTable.machine.welcomed(
            by: link.index,
            epoch: header.id,
            session: header.number,
            window: welcome.window,
            slots: welcome.isBroker ? 0 : max(1, min(welcome.concurrency, 1 << 20)),
            isResumed: welcome.isResumed,
            at: self.now,
            actions: &self.actions
        )
        self.callTable.machine.givenUp(by: link.index, afterNanoseconds: welcome.silenceNanoseconds)
    }

    /// What is wrong while a connection stands and nobody has answered the introduction.
    private static let noWelcome = "what listens there hasn't answered as a worker or a broker does"

    /// What is wrong while a peer that may be stopped, or overloaded, leaves the handshake to this side.
    private static let saysNothing = "what listens there has accepted the connection and says nothing"

    /// What the monitor saw of the connection.
    @available(*, noasync)
    func observeConnection(of link: ClientLink) {
        do throws(ZMQError) {
            while let event = try link.nextConnectionEvent() {
                switch event {
                case .connected: if link.failedHandshakes == 0 { link.lastProblem = Self.saysNothing }
                case .handshakeSucceeded:
                    link.beginAnew()
                    link.isUp = true
                    link.lastProblem = Self.noWelcome
                    self.callTable.machine.connected(link.index, at: self.now, actions: &self.actions)
                case .disconnected, .closed:
                    link.forgetTraffic()
                    link.isUp = false
                    // The other is an attempt's end, of which libzmq says more.
                    if case .disconnected = event { link.broke() }
                    if link.lastProblem == Self.noWelcome || link.lastProblem == Self.saysNothing {
                        link.lastProblem = nil
                    }
                    self.now = self.core.now()
                    self.callTable.machine.disconnected(link.index, at: self.now, actions: &self.actions)
                    // A busy loop doesn't sleep, where it would look for what is due.
                    self.nextTick = min(self.nextTick, self.callTable.machine.nextDeadline(after: self.now))
                case .connectRetried:
                    if let address = link.nextUntried() {
                        // The monitor of the socket that was is gone, and with it what it would say.
                        link.close(linger: .zero)
                        return self.open(link, at: address)
                    }
                    // After a connection that broke the next attempt will tell.
                    if link.didPause() {
                        link.failedHandshakes = 0
                        link.lastProblem = "nobody listens there"
                        self.callTable.machine.unreachable(link.index)
                    }
                    if link.failedToConnect() { self.lookUp(link) }
                case .handshakeFailedAuth:
                    let problem = Self.notListed
                    self.refused(link, reason: .authentication, problem)
                case .handshakeFailedProtocol(let code):
                    let (reason, problem) = self.handshakeProblem(code)
                    self.refused(link, reason: reason, problem)
                case .handshakeFailedNoDetail: self.closedAtOnce(link)
                default: break
                }
                self.performActions()
            }
        } catch {
            self.socketFailed(link, error)
        }
    }

    /// The peer said why it doesn't talk to this side: after that libzmq doesn't try again by itself.
    private func refused(_ link: ClientLink, reason: LossReason, _ problem: String) {
        link.lastProblem = problem
        link.failedHandshakes = 0
        self.callTable.machine.refused(by: link.index, reason: reason, at: self.now, actions: &self.actions)
    }

    /// The peer closed the connection without a word, as one does that doesn't speak ZeroMQ, or can't prove the key that it should have.
    ///
    /// So does a proxy with nobody behind it, or a peer that has no descriptor left: it is tried again, calls wait, and only who is
    /// impatient is told what it may be.
    private func closedAtOnce(_ link: ClientLink) {
        let guess = self.handshakeProblem(nil)
        let (reason, problem) =
            link.wasMet ? (.unreachable, "what listens there closes the connection at once") : guess
        link.broke()
        link.lastProblem = problem
        link.failedHandshakes += 1
        guard link.failedHandshakes >= ClientLink.handshakeLimit else { return }
        self.callTable.machine.unreachable(link.index, reason: reason)
        guard link.failedHandshakes == ClientLink.handshakeLimit else { return }
        self.core.logger.warning(
            "what listens at an endpoint closes each connection at once; it is tried again",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(problem)"]
        )
    }

    /// Whether an endpoint is to be dialled for who wants to know now whether a peer is there: what failed before, and libzmq's pause
    /// after it, are of the past.
    private func isStale(_ link: ClientLink) -> Bool {
        let endpoint = self.callTable.machine.endpoints[link.index]
        return !link.isUp && link.hasFailed && !(endpoint.isRefused && endpoint.mayLetIn)
    }

    /// Somebody wants to know now whether a peer is there.
    ///
    /// This may be a caller's thread: ``dialAnew()`` follows on the poller's.
    func knocked() {
        self.isKnocked = true
        for link in self.links where self.isStale(link) { self.callTable.machine.dialled(link.index) }
    }

    @available(*, noasync)
    func dialAnew() {
        self.isKnocked = false
        for link in self.links where !link.isUp {
            // What the monitor has to tell yet is older.
            self.observeConnection(of: link)
            guard self.isStale(link) else { continue }
            link.close(linger: .zero)
            link.beginAnew()
            self.callTable.machine.dialled(link.index)
            self.open(link)
        }
    }

    /// What a handshake that failed without the peer's refusal means.
    ///
    /// - Parameter code: What libzmq says of it; nil if the connection was closed without a word.
    /// - Returns: What becomes of calls there, and what is said.
    private func handshakeProblem(_ code: CInt?) -> (LossReason, String) {
        let isMismatch = code == Monitor.Event.mechanismMismatch
        if self.core.configuration.keys == nil {
            return isMismatch
                ? (.authentication, "the peer there wants keys, and this client has none: set configuration.keys")
                : (.protocol, "the peer there does not speak ZeroMQ as Drover does")
        }
        if isMismatch {
            return (.authentication, "the peer there has no keys: start it with some, or talk to it without")
        }
        let problem =
            code == nil
            ? "the peer there has another key than this client was given, or none, or isn't Drover: check server key and address"
            : "the peer there could not prove the server key that this client was given: check that key and the address"
        return (.authentication, problem)
    }

    @available(*, noasync)
    func open(_ link: ClientLink) {
        link.reopensAt = .distantFuture
        guard link.endpoint.nameToLookUp != nil else { return self.open(link, at: link.endpoint.addressToDial()) }
        self.lookUp(link)
    }

    /// Has the name of an endpoint looked up; see ``lookedUp(_:_:_:)``.
    private func lookUp(_ link: ClientLink) {
        guard let name = link.endpoint.nameToLookUp else { return }
        let (number, index) = (link.beginLookUp(), link.index)
        if link.lastProblem == nil { link.lastProblem = "the name \(name) is being looked up" }
        self.core.configuration.resolver.resolve(name) { [weak core = self.core] answer in
            core?.post(.lookedUp(endpoint: index, lookUp: number, answer))
        }
    }

    /// The name of an endpoint was looked up: for a new socket, or since the address that it had doesn't answer.
    @available(*, noasync)
    func lookedUp(_ link: ClientLink, _ number: Int, _ answer: NameResolver.Answer) {
        guard link.endLookUp(number), !link.isUp else { return }
        switch answer {
        case .success(let hosts):
            guard let address = link.next(of: hosts) else { return }
            link.foundHosts(hosts)
            guard link.socket != nil else { return self.open(link, at: address) }
            // libzmq goes on trying by itself.
            guard address != link.dialled else { return }
            link.close(linger: .zero)
            self.open(link, at: address)
        case .failure(let failure):
            link.lastProblem = "the name \(link.endpoint.nameToLookUp ?? "") can't be looked up: \(failure)"
            self.callTable.machine.unreachable(link.index)
            guard link.socket == nil else { return }
            let isFirst = link.couldNotOpen(at: self.core.now())
            self.core.logger.log(
                level: isFirst ? .warning : .debug,
                "an endpoint's name can't be looked up now; it is tried again",
                metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(failure)"]
            )
        }
    }

    @available(*, noasync)
    private func open(_ link: ClientLink, at address: String) {
        do throws(ZMQError) {
            let wasShort = link.isShort
            try link.open(at: address)
            if link.endpoint.nameToLookUp != nil { link.lastProblem = nil }
            guard wasShort else { return }
            link.lastProblem = nil
            self.core.logger.notice(
                "an endpoint can be connected to again",
                metadata: [LogKeys.endpoint: "\(link.endpoint)"]
            )
        } catch {
            link.lastProblem = "\(error)"
            guard error.isPermanent else {
                // A passing shortage, as far as can be known: calls wait, and it is tried again.
                let isFirst = link.couldNotOpen(at: self.core.now())
                return self.core.logger.log(
                    level: isFirst ? .warning : .debug,
                    "an endpoint can't be connected to now; it is tried again",
                    metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
                )
            }
            self.core.logger.warning(
                "an endpoint can't be connected to",
                metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
            )
            self.callTable.machine.refused(by: link.index, reason: .protocol, at: self.now, actions: &self.actions)
            // The machine asks for a new socket; what failed now would fail again at once.
            self.actions.removeAll { $0 == .rebuild(endpoint: link.index) }
        }
    }

    @available(*, noasync)
    func socketFailed(_ link: ClientLink, _ error: ZMQError) {
        self.core.logger.warning(
            "a socket failed and is made anew",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        link.lastProblem = "\(error)"
        link.close(linger: .zero)
        self.callTable.machine.disconnected(link.index, at: self.now, actions: &self.actions)
        self.open(link)
    }

    /// What this client's life is called towards a worker.
    ///
    /// One that was given up is met under another epoch, so that it ends the session that was left, with all that still
    /// runs or waits in it.
    func epoch(for endpoint: Int) -> UInt64 {
        self.core.epoch &+ self.callTable.machine.endpoints[endpoint].losses
    }

    func lastPlace(of result: AnyAsyncResult) -> (link: ClientLink, worker: String) {
        let link = self.links[min(result.lastEndpoint, self.links.count - 1)]
        return (link, self.core.workerName(of: link.index))
    }

    func error(_ reason: LossReason, of link: ClientLink, worker: String) -> ConnectionError {
        let place = self.place(of: link, worker)
        let detail = link.lastProblem.map { " (\($0))" } ?? ""
        switch reason {
        case .silent:
            let limit = self.core.configuration.silenceLimit
            return ConnectionError(
                .lost,
                message:
                    "\(place) was silent for \(PeopleText.time(limit)); whether the call ran is unknown: make it again if it may run twice"
            )
        case .disconnected:
            return ConnectionError(
                .lost,
                message:
                    "\(place) closed the connection and was not back within a second; whether the call ran is unknown: "
                    + "make it again if it may run twice"
            )
        case .restarted:
            return ConnectionError(
                .lost,
                message: "\(place) was restarted; whether the call ran is unknown: make it again if it may run twice"
            )
        case .forgotten:
            return ConnectionError(
                .lost,
                message:
                    "\(place) had given this client up; whether the call ran is unknown: make it again if it may run twice"
            )
        case .left:
            return ConnectionError(.lost, message: "\(place) was shut down before it answered; make the call again")
        case .authentication:
            return ConnectionError(
                .authentication,
                message: self.refusal(by: link, place, detail)
            )
        case .protocol:
            return ConnectionError(
                .protocol,
                message: "\(link.endpoint) can't be talked to\(detail); check the address"
            )
        case .full:
            return ConnectionError(
                .lost,
                message:
                    "\(place) has no room for this client at the moment\(detail); whether a call that was there before ran is "
                    + "unknown: make it again if it may run twice"
            )
        case .unreachable:
            return ConnectionError(
                .unavailable,
                message: "no worker or broker can be reached: \(self.core.problems); start one there, or check the "
                    + "address"
            )
        case .refused:
            return ConnectionError(.protocol, message: "\(place) does not accept this client\(detail)")
        }
    }

    /// An endpoint as it is called in messages: a broker isn't taken for a worker.
    private func place(of link: ClientLink, _ name: String) -> String {
        // Who has not said what it is may be either.
        let kind =
            self.core.isBroker(link.index) ? "the broker" : name.isEmpty && !link.wasMet ? "the peer" : "the worker"
        return name.isEmpty ? "\(kind) at \(link.endpoint)" : "\(kind) \(name) at \(link.endpoint)"
    }

    /// What is told of a session that has ended, of which nothing is to be done: what becomes of the calls is this client's business.
    private func sessionError(_ reason: LossReason, of link: ClientLink) -> ConnectionError {
        let error = self.error(reason, of: link, worker: self.core.workerName(of: link.index))
        let place = self.place(of: link, self.core.workerName(of: link.index))
        switch reason {
        case .silent, .disconnected, .restarted, .forgotten: break
        case .left, .authentication, .protocol, .refused, .unreachable: return error
        case .full:
            let detail = link.lastProblem.map { " (\($0))" } ?? ""
            return ConnectionError(
                error.code,
                message:
                    "\(place) has no room for this client at the moment\(detail); it is asked again, and calls wait"
            )
        }
        let message =
            "\(place) is lost: \(reason.words); its calls that may run twice are made again, the others end as lost"
        return ConnectionError(error.code, message: message)
    }

    /// A call was running each time that a worker died.
    func poison(_ result: AnyAsyncResult, attempts: Int, endpoints: [Int]) -> RemoteError {
        let workers = endpoints.map { self.core.workerName(of: $0) }
        var error = RemoteError(
            .poison,
            message: "workers died \(attempts) times while they had the call, the last time it was all that one had: "
                + "it isn't made again",
            worker: workers.last ?? "",
            function: result.functionName,
            correlationID: result.correlationID
        )
        error.attempts = attempts
        error.workers = workers
        return error
    }

    /// Workers sent a call back too often.
    func declined(_ result: AnyAsyncResult, by endpoint: Int) -> RemoteError {
        let worker = self.core.workerName(of: endpoint)
        return RemoteError(
            .busy,
            message: "\(worker) sent the call back again and again without running it; make it again later",
            isRetryable: true,
            worker: worker,
            function: result.functionName,
            correlationID: result.correlationID
        )
    }

    private func refusal(by link: ClientLink, _ place: String, _ detail: String) -> String {
        guard let keys = self.core.configuration.keys else {
            return
                "\(place) lets nobody in without a key\(detail); make one with `drover keys new`, have it allowed there"
        }
        // What went wrong says what to do about it, but for a key that isn't known.
        if let problem = link.lastProblem, problem != Self.notListed {
            return "\(place) can't be talked to: \(problem)"
        }
        return
            "\(place) does not let this client in\(detail); this client's key is \(keys.own.publicKey): "
            + "have it allowed there with `drover keys allow`, or use an allowed one"
    }

    private static var notListed: String { "the key isn't on the allow-list there" }

    @available(*, noasync)
    func sessionOpened(_ link: ClientLink, isResumed: Bool) {
        self.core.counters.sessions.count()
        let worker = self.core.workerName(of: link.index)
        self.core.logger.debug(
            "a session began",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.worker: "\(worker)"]
        )
        link.lastProblem = nil
        if isResumed {
            self.attempt(link) { link throws(ZMQError) in try link.restateInvocations() }
        } else {
            link.forgetInvocations()
        }
        for subscription in self.core.subscriptions.all {
            if !isResumed { subscription.forgetSequence(of: link.index) }
            // A pause, or its end, may have gone with the former connection. Also where the session is new to this side: the peer
            // may have begun it by a connection that broke before the welcome came.
            guard subscription.wasPaused else { continue }
            self.reply(to: link, Header(.flow, id: subscription.isPaused ? 0 : 1, number: subscription.id.rawValue))
        }
        guard let hook = self.core.configuration.onConnect else { return }
        let connection = Connection(endpoint: link.endpoint, worker: worker, isResumed: isResumed)
        self.core.callbacks.enqueue { hook(connection) }
    }

    @available(*, noasync)
    func sessionLost(_ link: ClientLink, reason: LossReason) {
        link.forgetInvocations()
        // Who is refused tries again and again; users hear of it once.
        if link.isRefusedAgain { return }
        self.core.counters.disconnections.count()
        let error = self.sessionError(reason, of: link)
        self.core.logger.warning(
            self.core.isBroker(link.index) ? "a broker is lost" : "a worker is lost",
            metadata: [LogKeys.endpoint: "\(link.endpoint)", LogKeys.error: "\(error)"]
        )
        guard let hook = self.core.configuration.onDisconnect else { return }
        let disconnection = Disconnection(endpoint: link.endpoint, error: error)
        self.core.callbacks.enqueue { hook(disconnection) }
    }
}
