// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// An attacker's socket: libzmq itself, and bytes written by hand.
///
/// Nothing of Drover is in it, so nothing of Drover holds it back.
final class PlainPeer {
    /// What didn't come about.
    struct Failure: Error {
        let what: String
    }

    /// Keys as libzmq writes them.
    struct Keys: Sendable {
        let own: String
        let secret: String
        let server: String

        init(own: String, secret: String, server: String) {
            self.own = own
            self.secret = secret
            self.server = server
        }

        init(server: String) {
            var own = [CChar](repeating: 0, count: 41)
            var secret = own
            _ = unsafe zmq_curve_keypair(&own, &secret)
            self.own = String(decoding: own.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            self.secret = String(decoding: secret.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            self.server = server
        }
    }

    private let context: UnsafeMutableRawPointer
    private let socket: UnsafeMutableRawPointer

    /// Connects; a routing id is what the peer's ROUTER is to know the connection by.
    init(_ endpoint: String, claiming routingID: [UInt8] = [], keys: Keys? = nil) throws {
        guard let context = unsafe zmq_ctx_new(), let socket = unsafe zmq_socket(context, ZMQ_DEALER) else {
            throw Failure(what: "no socket: errno \(errno)")
        }
        unsafe (self.context, self.socket) = (context, socket)
        self.set(ZMQ_LINGER, 0)
        if !routingID.isEmpty {
            _ = unsafe routingID.withUnsafeBytes {
                unsafe zmq_setsockopt(socket, ZMQ_ROUTING_ID, $0.baseAddress, $0.count)
            }
        }
        if let keys {
            self.set(ZMQ_CURVE_SERVERKEY, keys.server)
            self.set(ZMQ_CURVE_PUBLICKEY, keys.own)
            self.set(ZMQ_CURVE_SECRETKEY, keys.secret)
        }
        guard unsafe zmq_connect(socket, endpoint) == 0 else {
            throw Failure(what: "no connection to \(endpoint): errno \(errno)")
        }
    }

    deinit {
        _ = unsafe zmq_close(self.socket)
        _ = unsafe zmq_ctx_term(self.context)
    }

    private func set(_ option: CInt, _ value: CInt) {
        _ = unsafe withUnsafeBytes(of: value) { unsafe zmq_setsockopt(self.socket, option, $0.baseAddress, $0.count) }
    }

    private func set(_ option: CInt, _ text: String) {
        _ = unsafe zmq_setsockopt(self.socket, option, text, text.utf8.count)
    }

    /// Sends a frame of messages.
    func send(_ messages: [UInt8]...) { self.sendFrame(messages.flatMap { $0 }) }

    /// Sends a frame.
    ///
    /// - Returns: Whether there was room for it.
    @discardableResult
    func sendFrame(_ bytes: [UInt8]) -> Bool {
        unsafe bytes.withUnsafeBytes { unsafe zmq_send(self.socket, $0.baseAddress, $0.count, ZMQ_DONTWAIT) } >= 0
    }

    /// Sends frames one after the other, waiting for room.
    func sendAll(_ frames: some Sequence<[UInt8]>) {
        for frame in frames { while !self.sendFrame(frame) { usleep(500) } }
    }

    /// The next frame; nil if none comes in time.
    func receive(within milliseconds: CInt = 2000) -> [UInt8]? {
        self.set(ZMQ_RCVTIMEO, milliseconds)
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe zmq_recv(self.socket, $0.baseAddress, $0.count, 0) }
        return count < 0 ? nil : Array(bytes.prefix(Int(count)))
    }

    /// Waits until a message of a kind has come.
    func awaits(_ kind: UInt8) -> Bool {
        for _ in 0..<1000 {
            guard let frame = self.receive(within: 10_000) else { return false }
            if Self.messages(in: frame).contains(where: { $0.kind == kind }) { return true }
        }
        return false
    }

    /// The next answers to so many requests, by id, with what of their bytes can be read.
    func answers(_ count: Int) throws -> [UInt64: (kind: UInt8, text: String)] {
        var answers: [UInt64: (kind: UInt8, text: String)] = [:]
        while answers.count < count {
            guard let frame = self.receive(within: 10_000) else { throw Failure(what: "no more than \(answers)") }
            for (kind, id, payload) in Self.messages(in: frame) where [Plain.reply, Plain.error].contains(kind) {
                let text = String(decoding: payload.filter { (32..<127).contains($0) }, as: UTF8.self)
                answers[id] = (kind, text)
            }
        }
        return answers
    }

    /// The messages of a frame.
    static func messages(in frame: [UInt8]) -> [(kind: UInt8, id: UInt64, payload: [UInt8])] {
        var messages: [(UInt8, UInt64, [UInt8])] = []
        var place = 0
        while place + 24 <= frame.count {
            func number(_ offset: Int, _ count: Int) -> UInt64 {
                (0..<count).reduce(0) { $0 | UInt64(frame[place + offset + $1]) << (8 * UInt64($1)) }
            }
            let end = min(frame.count, place + 24 + Int(number(4, 4)))
            messages.append((frame[place + 1], number(8, 8), Array(frame[place + 24..<end])))
            place = end
        }
        return messages
    }

    /// The kinds of the messages in the frames that come until none does for a while.
    func kinds(within milliseconds: CInt = 1000) -> [UInt8] {
        var kinds: [UInt8] = []
        while let frame = self.receive(within: milliseconds) { kinds += Self.messages(in: frame).map { $0.kind } }
        return kinds
    }
}

/// Messages as the protocol's page has them.
enum Plain {
    static let (hello, welcome, refused): (UInt8, UInt8, UInt8) = (1, 2, 8)
    static let (reset, ping, pong, event): (UInt8, UInt8, UInt8, UInt8) = (3, 6, 7, 32)
    static let (define, request, reply, control): (UInt8, UInt8, UInt8, UInt8) = (16, 17, 18, 52)
    static let (error, caller): (UInt8, UInt8) = (19, 53)
    static let (cancel, accepted, started, cancelled): (UInt8, UInt8, UInt8, UInt8) = (20, 21, 22, 24)

    /// A message: the header of 24 bytes, and what follows it.
    static func message(
        _ kind: UInt8,
        flags: UInt8 = 0,
        id: UInt64 = 0,
        time: UInt32 = 0,
        number: UInt32 = 0,
        _ payload: [UInt8] = []
    ) -> [UInt8] {
        [0xD1, kind, flags, 0] + self.bytes(of: UInt32(payload.count)) + self.bytes(of: id) + self.bytes(of: time)
            + self.bytes(of: number) + payload
    }

    static func bytes(of value: some FixedWidthInteger) -> [UInt8] {
        (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    /// A HELLO of a client with an identity of 16 equal bytes, with further entries.
    static func hello(client: UInt8, epoch: UInt64 = 1, _ more: [(String, [UInt8])] = []) -> [UInt8] {
        let identity = [0xC4, 16] + [UInt8](repeating: client, count: 16)
        let entries = [
            ("minor", [0]), ("client", identity), ("name", self.text("attacker")), ("beat", [0xCD, 0x07, 0xD0]),
            ("maxPayload", [0xCE, 0, 0x10, 0, 0]),
        ]
        let map = entries + more
        let payload = [0x80 | UInt8(map.count)] + map.flatMap { self.text($0.0) + $0.1 }
        return self.message(self.hello, id: epoch, payload)
    }

    /// A REQUEST with metadata in front of its arguments.
    static func request(
        _ id: UInt64,
        function: UInt32 = 0,
        _ metadata: [(String, [UInt8])],
        arguments: [UInt8] = [0x90]
    ) -> [UInt8] {
        let entries: [[UInt8]] = metadata.map { self.text($0.0) + $0.1 }
        let map: [UInt8] = [0xDF] + UInt32(metadata.count).bigEndianBytes + entries.joined()
        let flags: UInt8 = metadata.isEmpty ? 0 : 4
        return self.message(
            self.request,
            flags: flags,
            id: id,
            time: .max,
            number: function,
            (metadata.isEmpty ? [] as [UInt8] : map) + arguments
        )
    }

    /// A map of texts.
    static func map(_ entries: [(String, String)]) -> [UInt8] {
        let pairs: [[UInt8]] = entries.map { self.text($0.0) + self.text($0.1) }
        return [0xDF] + UInt32(entries.count).bigEndianBytes + pairs.joined()
    }

    static func text(_ text: String) -> [UInt8] { [0xD9, UInt8(text.utf8.count)] + Array(text.utf8) }
    static let yes: [UInt8] = [0xC3]
}

extension UInt32 {
    /// As MessagePack has numbers.
    var bigEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> (24 - 8 * $0)) } }
}
