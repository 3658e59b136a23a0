// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverCore
internal import DroverRuntime
internal import DroverWire
internal import DroverZMQ

// The answers of clients' callbacks, on their way to the workers that called them.

/// An answer that arrived while its worker couldn't be reached.
struct HeldAnswer {
    let header: Header
    /// The frame that the answer arrived in and its range there; nil if only its payload is kept.
    let frame: (box: MessageBox, range: Range<Int>)?
    let payload: [UInt8]
}

extension BrokerLoop {
    /// Passes a callback's answer on; if its worker is away, once it is back.
    func answerInvocation(_ id: UInt64, of worker: Int, _ incoming: Incoming) {
        guard let link = self.workerLinks[worker] else { return }
        var answer = incoming.header
        answer.id = id
        answer.flags.remove(.attached)
        guard self.machine.workers[worker].isOpen else {
            // The end of its session, or the list of what is pending, will tell the worker that the answer is lost.
            guard link.heldAnswers.count < Self.mostHeldAnswers else {
                return self.core.counters.undeliverable.countAlone()
            }
            let frame = incoming.box.map { ($0, incoming.range) }
            let payload = unsafe frame == nil ? [UInt8](incoming.payload) : []
            return link.heldAnswers.append(HeldAnswer(header: answer, frame: frame, payload: payload))
        }
        self.passAnswer(answer, incoming, to: link)
    }

    private static var mostHeldAnswers: Int { 4096 }

    private func passAnswer(_ answer: Header, _ incoming: Incoming, to link: PeerLink) {
        if self.forward(answer, incoming, to: link) { return }
        let message =
            "the callback's answer is larger than the worker takes, \(PeopleText.size(link.maxPayloadBytes)): return less"
        self.send(Header(.error, id: answer.id), self.errorPayload(.tooLarge, message, false, 0), to: link)
    }

    /// Resumes a worker's session: tells it which of its invocations will be answered, then sends the answers that were
    /// held.
    func restateInvocations(of worker: Int, connection: UInt32) {
        guard let link = self.workerLinks[worker] else { return }
        let held = link.heldAnswers
        link.heldAnswers = []
        // Nothing was lost before the first connection.
        if connection > 1 {
            let ids = self.machine.invocations(of: worker) + held.map { $0.header.id } + link.line.unsentAnswers
            for list in PendingPayload.lists(of: ids, forPayloadsOf: link.maxPayloadBytes) {
                self.send(Header(.pending, time: list.hasMore ? 1 : 0, number: connection), list.bytes, to: link)
            }
        }
        for answer in held {
            if let (box, range) = answer.frame {
                unsafe box.withUnsafeBytes { bytes in
                    let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
                    let incoming = unsafe Incoming(header: answer.header, payload: payload, range: range, box: box)
                    self.passAnswer(answer.header, incoming, to: link)
                }
            } else {
                unsafe answer.payload.withUnsafeBytes { payload in
                    let incoming = unsafe Incoming(
                        header: answer.header,
                        payload: payload,
                        range: 0..<payload.count,
                        box: nil
                    )
                    self.passAnswer(answer.header, incoming, to: link)
                }
            }
        }
    }

    func failInvocation(_ id: UInt64, worker: Int, isLost: Bool = false) {
        guard let link = self.workerLinks[worker] else { return }
        let message =
            isLost
            ? "the call of a callback, or its answer, was lost with a connection; whether it ran is unknown: make it again if it "
                + "may run twice"
            : "nobody listens to the callback any more: it was cancelled, or its client is gone"
        self.send(
            Header(.error, id: id),
            self.errorPayload(isLost ? .lost : .subscriberGone, message, false, 0),
            to: link
        )
    }

    /// Takes the list of invocations that a client whose session resumed is working on.
    func takePending(_ incoming: Incoming, _ client: Int) {
        let header = incoming.header
        // The list may be about an earlier connection.
        guard header.number == self.machine.clients[client].connection else { return }
        do throws(WireError) {
            try unsafe PendingPayload.read(incoming.payload) { self.machine.isPending($0, from: client) }
        } catch {
            return self.malformed(error)
        }
        if header.time == 0 { self.machine.endLostInvocations(of: client, actions: &self.actions) }
    }
}
