// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// What libzmq asks about a connection that has proved its key in the handshake.
package struct ZAPRequest: Hashable, Sendable {
    /// Which of our sockets the connection is for.
    package var domain: String
    /// The peer's IP address, without the port.
    package var address: String
    /// The key that the peer has proved it holds, 32 bytes.
    package var publicKey: [UInt8]
}

/// Whether the connection is let in.
package enum ZAPVerdict: Hashable, Sendable {
    /// The peer is known by this name, the `User-Id` property of all its messages.
    case allowed(userID: String)
    /// The peer is told that it is refused, but not why.
    case refused(reason: String)
    /// The connection is closed without a reply; the peer's libzmq tries again by itself.
    case postponed(reason: String)
}

/// Answers libzmq's questions about who may connect (ZAP, RFC 27), on a thread of its own.
///
/// There is one for each context. It knows nothing about files and never waits for anything but questions. Anything
/// that isn't a question is dropped; a question that no judge is there to decide is answered with a refusal. It ends
/// with its context.
package final class ZAPHandler: Sendable {
    package typealias Judge = @Sendable (ZAPRequest) -> ZAPVerdict

    private final class Table: Sendable {
        let judges = Mutex<(next: Int, all: [String: Judge])>((1, [:]))
    }

    /// Where libzmq sends its questions.
    package static let endpoint = "inproc://zeromq.zap.01"

    private let table = Table()

    /// Starts the handler, which answers by the time this returns.
    ///
    /// - Throws: ``ZMQError`` if the context already has one, or the system can't start a thread.
    @available(*, noasync)
    package init(in context: Context) throws(ZMQError) {
        let ready = ReadySignal<ZMQError?>()
        _ = try LoopThread.start(named: "drover-zap") { [table = self.table] in
            do throws(ZMQError) {
                var loop = try Loop(context: context, table: table)
                ready.set(nil)
                loop.run()
            } catch {
                ready.set(error)
            }
        }
        if let error = ready.wait() { throw error }
    }

    /// Lets a judge decide about the sockets of a domain.
    ///
    /// - Returns: The domain, for ``SocketOption/zapDomain``.
    package func add(_ judge: @escaping Judge) -> String {
        self.table.judges.withLock { judges in
            let domain = "drover-\(judges.next)"
            judges.next += 1
            judges.all[domain] = judge
            return domain
        }
    }

    /// Refuses all further connections to the sockets of a domain.
    package func remove(domain: String) {
        self.table.judges.withLock { _ = $0.all.removeValue(forKey: domain) }
    }

    // MARK: The thread

    private struct Loop: ~Copyable {
        private static let maxFrames = 16
        private static let maxFrameBytes = 1024

        private let socket: Socket
        private let table: Table
        private var poll = DescriptorPoll(capacity: 1)
        private var frame = Message()

        @available(*, noasync)
        init(context: Context, table: Table) throws(ZMQError) {
            // A ROUTER, not a REP: one malformed question could keep a REP from ever answering again.
            let socket = try Socket(.router, in: context)
            try socket.bind(ZAPHandler.endpoint)
            self.socket = socket
            self.table = table
        }

        /// Answers until the context ends.
        @available(*, noasync)
        mutating func run() {
            do throws(ZMQError) {
                let descriptor = try self.socket.get(.fileDescriptor)
                while true {
                    while let frames = try self.receive() { try self.answer(frames) }
                    self.poll.removeAll()
                    _ = self.poll.add(descriptor)
                    try self.poll.wait(milliseconds: 1000)
                }
            } catch {
                // The context has ended: there are no more questions.
            }
        }

        /// The frames of the next message; empty for one that is too large to be a question.
        @available(*, noasync)
        private mutating func receive() throws(ZMQError) -> [[UInt8]]? {
            var frames: [[UInt8]] = []
            var isSound = true
            guard try self.socket.receive(into: &self.frame) else { return nil }
            while true {
                isSound = isSound && frames.count < Self.maxFrames && self.frame.count <= Self.maxFrameBytes
                if isSound { frames.append(self.frame.bytes) }
                guard self.frame.hasMore, try self.socket.receive(into: &self.frame) else { break }
            }
            return isSound ? frames : []
        }

        /// A question: route, empty frame, version, number, domain, address, routing id, mechanism, credentials.
        @available(*, noasync)
        private func answer(_ frames: [[UInt8]]) throws(ZMQError) {
            guard frames.count >= 8, frames[1].isEmpty, frames[2] == Array("1.0".utf8) else { return }
            let verdict = self.verdict(on: frames)
            var answer = [frames[0], [], frames[2], frames[3]]
            switch verdict {
            case .allowed(let userID): answer += [Array("200".utf8), [], Array(userID.utf8), []]
            case .refused(let reason): answer += [Array("400".utf8), Array(reason.utf8), [], []]
            case .postponed(let reason): answer += [Array("300".utf8), Array(reason.utf8), [], []]
            }
            for (index, bytes) in answer.enumerated() {
                var frame = Message(copying: bytes)
                // The peer that asked may be gone: a ROUTER then drops the answer.
                guard try self.socket.send(&frame, more: index + 1 < answer.count) else { return }
            }
        }

        private func verdict(on frames: [[UInt8]]) -> ZAPVerdict {
            guard frames[7] == Array("CURVE".utf8), frames.count == 9, frames[8].count == CurveKeyPair.keyByteCount
            else {
                return .refused(reason: "only CURVE keys are known here")
            }
            let request = ZAPRequest(
                domain: String(decoding: frames[4], as: UTF8.self),
                address: String(decoding: frames[5], as: UTF8.self),
                publicKey: frames[8]
            )
            let judge = self.table.judges.withLock { $0.all[request.domain] }
            return judge?(request) ?? .refused(reason: "nobody judges for this domain")
        }
    }
}
