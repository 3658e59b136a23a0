// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
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
            while let event = try self.monitor?.next() {
                guard let index = self.dial(of: event) else {
                    if event.kind == .handshakeSucceeded { self.connected(to: nil) }
                    continue
                }
                switch event.kind {
                case .handshakeSucceeded:
                    self.dials[index].lastRefusal = ""
                    self.dials[index].failedHandshakes = 0
                    self.dials[index].refusals = 0
                    self.connected(to: index)
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
                    self.refused(by: index, self.problem(0))
                default: break
                }
            }
        } catch {
            self.core.logger.warning("the connections can't be watched", metadata: [LogKeys.error: "\(error)"])
            self.monitor = nil
        }
    }

    /// Which broker's connection an event is about; nil if that can't be said: somebody may have dialled this worker, and when
    /// libzmq connects again it calls a broker by the address that its name stands for.
    private func dial(of event: Monitor.Event) -> Int? {
        self.dials.firstIndex { $0.address == event.endpoint } ?? (self.isBound || self.dials.count > 1 ? nil : 0)
    }

    private var ownKey: String { self.core.configuration.keys?.own.publicKey.text ?? "" }

    private func problem(_ code: CInt) -> String {
        let isMismatch = code == Monitor.Event.mechanismMismatch
        guard self.core.configuration.keys != nil else {
            return isMismatch
                ? "it wants keys, and this worker has none: set configuration.keys"
                : "it does not speak ZeroMQ as Drover does"
        }
        return isMismatch
            ? "it has no keys: start it with some, or talk to it without"
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
        guard !self.machine.isDraining else { return }
        for index in self.dials.indices where self.dials[index].redialsAt <= self.now { self.dialAgain(index) }
    }

    @available(*, noasync)
    private func dialAgain(_ index: Int) {
        let former = self.dials[index]
        self.dials[index].redialsAt = .distantFuture
        // Mostly nothing is left of the connection that was refused.
        try? self.socket.disconnect(former.address)
        do throws(ZMQError) {
            try self.socket.connectEncrypted(self.core.configuration.keys, to: former.address)
            // Under another name, since libzmq ends the program when two connections have the same.
            var dial = try Self.dial(
                former.address,
                number: index,
                attempt: former.attempt + 1,
                socket: self.socket,
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
