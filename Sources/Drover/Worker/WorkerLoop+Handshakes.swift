// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ
internal import Logging

// What becomes of the connections to brokers before anything of the protocol crosses: a broker that doesn't let a key in says
// nothing but that.

extension WorkerLoop {
    /// Reads what the monitor saw.
    @available(*, noasync)
    func observeDials() {
        self.mayHaveDialEvents = false
        do throws(ZMQError) {
            defer { self.gate.report(to: self.core.logger, at: self.now) }
            while let event = try self.port.monitor?.next() {
                self.gate.saw(event.kind)
                switch event.kind {
                case .accepted(let descriptor):
                    self.connections.accepted(descriptor)
                    continue
                case .listening: continue
                case .disconnected(let descriptor): self.connectionClosed(descriptor)
                default: break
                }
                guard let index = self.dial(of: event) else {
                    if event.kind == .handshakeSucceeded { self.connected(to: nil) }
                    continue
                }
                switch event.kind {
                case .handshakeSucceeded:
                    self.dials[index].lastRefusal = ""
                    self.dials[index].failedHandshakes = 0
                    self.dials[index].refusals = 0
                    self.dials[index].isUp = true
                    self.dials[index].isReconnected = true
                    self.connected(to: index)
                case .disconnected: self.dials[index].isUp = false
                case .connectRetried: self.failedToConnect(to: index)
                case .handshakeFailedAuth:
                    let remedy = "have it allowed with `drover keys allow`"
                    self.refused(by: index, "the worker's key \(self.ownKey) isn't on the allow-list there: \(remedy)")
                    self.postpone(index)
                case .handshakeFailedProtocol(let code):
                    self.refused(by: index, self.problem(code))
                    self.postpone(index)
                case .handshakeFailedNoDetail:
                    // The peer closed the connection. It may just have died, and libzmq tries again.
                    self.dials[index].failedHandshakes += 1
                    guard self.dials[index].failedHandshakes >= ClientLink.handshakeLimit else { continue }
                    self.refused(by: index, self.problem(nil))
                default: break
                }
            }
        } catch {
            self.core.logger.warning("the connections can't be watched", metadata: [LogKeys.error: "\(error)"])
            self.port.monitor = nil
        }
    }

    /// Which broker's connection an event is about; nil if that can't be said: somebody may have dialled this worker.
    private func dial(of event: Monitor.Event) -> Int? {
        self.dials.firstIndex { $0.dialled == event.endpoint } ?? (self.isBound || self.dials.count > 1 ? nil : 0)
    }

    /// An attempt to connect failed: after about a second the name is looked up again, for its host may have moved.
    private func failedToConnect(to index: Int) {
        self.dials[index].retries += 1
        if self.dials[index].retries == Self.retriesBeforeLookUp { self.noteMissed(index) }
        if self.dials[index].retries >= Self.retriesBeforeLookUp { self.lookUp(index) }
    }

    private static var retriesBeforeLookUp: Int { 6 }

    /// Has the name of a broker looked up, if it has one; see ``lookedUp(_:_:)``.
    func lookUp(_ index: Int) {
        guard let name = self.dials[index].endpoint.nameToLookUp, !self.dials[index].isLookingUp else { return }
        self.dials[index].isLookingUp = true
        self.dials[index].retries = 0
        self.core.configuration.resolver.resolve(name) { [weak core = self.core] answer in
            core?.post(.lookedUp(dial: index, answer))
        }
    }

    /// The name of a broker was looked up: to dial it first, or since the address that it had doesn't answer.
    @available(*, noasync)
    func lookedUp(_ index: Int, _ answer: NameResolver.Answer) {
        self.dials[index].isLookingUp = false
        guard !self.dials[index].isUp, self.isWanted(index) else { return }
        switch answer {
        case .success(let hosts):
            self.dials[index].lookUps.succeeded()
            let addresses = hosts.map { self.dials[index].endpoint.addressToDial(at: $0) }
            let former = self.dials[index].dialled.flatMap { addresses.firstIndex(of: $0) }
            let address = former.map { addresses[($0 + 1) % addresses.count] } ?? addresses.first
            // libzmq goes on trying by itself, unless it was told to end that.
            guard let address, address != self.dials[index].dialled else { return }
            self.dial(index, at: address)
        case .failure(let failure):
            let name = self.dials[index].endpoint.nameToLookUp ?? ""
            let reason = "its name \(name) can't be looked up: \(failure)"
            if reason != self.dials[index].lastRefusal {
                self.dials[index].lastRefusal = reason
                self.core.logger.warning(
                    "a broker can't be dialled now; it is tried again",
                    metadata: [LogKeys.endpoint: "\(self.dials[index].address)", LogKeys.error: "\(reason)"]
                )
            }
            guard self.dials[index].dialled == nil else { return }
            self.dials[index].redialsAt = self.dials[index].lookUps.failed(at: self.core.now())
            self.nextTick = min(self.nextTick, self.dials[index].redialsAt)
        }
    }

    private var ownKey: String { self.core.configuration.keys?.own.publicKey.text ?? "" }

    /// What a handshake that failed means; nil is one whose connection was closed without a word.
    private func problem(_ code: CInt?) -> String {
        let isMismatch = code == Monitor.Event.mechanismMismatch
        guard self.core.configuration.keys != nil else {
            return isMismatch
                ? "it wants keys, and this worker has none: set configuration.keys"
                : "it does not speak ZeroMQ as Drover does"
        }
        if isMismatch { return "it has no keys: start it with some, or talk to it without" }
        return code == nil
            ? "it has another key than this worker was given, or none, or isn't Drover: check server key and address"
            : "it could not prove the server key that this worker was given: check that key and the address"
    }

    // MARK: Dialling again

    /// After a handshake that ended with a reason libzmq doesn't try again: the worker does, after a while that doubles up to
    /// two seconds.
    ///
    /// Does nothing if it is going to.
    func postpone(_ index: Int) {
        guard self.dials[index].redialsAt == .distantFuture else { return }
        let wait = min(UInt64(100_000_000) << UInt64(min(self.dials[index].refusals, 8)), 2_000_000_000)
        self.dials[index].refusals += 1
        self.dials[index].redialsAt = self.now.advanced(byNanoseconds: wait)
        self.nextTick = min(self.nextTick, self.dials[index].redialsAt)
    }

    @available(*, noasync)
    func dialAgainWhereDue() {
        for index in self.dials.indices where self.dials[index].redialsAt <= self.now {
            if self.isWanted(index) { self.dialAgain(index) } else { self.dials[index].redialsAt = .distantFuture }
        }
    }

    @available(*, noasync)
    private func dialAgain(_ index: Int) {
        self.dials[index].redialsAt = .distantFuture
        guard self.dials[index].endpoint.nameToLookUp != nil else {
            return self.dial(index, at: self.dials[index].endpoint.addressToDial())
        }
        self.endDial(index)
        self.lookUp(index)
    }

    /// Mostly nothing is left of a connection that was refused.
    @available(*, noasync)
    private func endDial(_ index: Int) {
        if let address = self.dials[index].dialled { try? self.port.socket.disconnect(address) }
        self.dials[index].dialled = nil
        self.dials[index].isUp = false
    }

    @available(*, noasync)
    private func dial(_ index: Int, at address: String) {
        self.endDial(index)
        let former = self.dials[index]
        do throws(ZMQError) {
            try self.port.socket.connectEncrypted(self.core.configuration.keys, to: former.address)
            var dial = try Self.dial(
                former.endpoint,
                at: address,
                number: index,
                socket: self.port.socket,
                silence: self.core.configuration.silenceLimit.clampedNanoseconds,
                at: self.now
            )
            dial.lastRefusal = former.lastRefusal
            dial.failedHandshakes = former.failedHandshakes
            dial.refusals = former.refusals
            self.dials[index] = dial
        } catch {
            self.refused(by: index, "it can't be dialled: \(error)")
            self.postpone(index)
        }
    }

    /// Says in the log that a broker doesn't want this worker, once for each reason.
    func refused(by index: Int, _ reason: String) {
        guard reason != self.dials[index].lastRefusal else { return }
        self.dials[index].lastRefusal = reason
        self.core.logger.error(
            "a broker refuses this worker",
            metadata: [LogKeys.endpoint: "\(self.dials[index].address)", LogKeys.error: "\(reason)"]
        )
    }
}
