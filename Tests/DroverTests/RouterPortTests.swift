// SPDX-License-Identifier: Apache-2.0

import DroverRuntime
import DroverWire
import DroverZMQ
import Logging
import Testing

/// The port of a ROUTER, with a DEALER of libzmq's at the other end.
@Suite("Router port")
struct RouterPortTests {
    private final class Ends {
        let port: RouterPort
        let peer: Socket
        /// libzmq's name of the peer, and its number, as the last frame came with them.
        private(set) var name: [UInt8] = []
        private(set) var number: UInt64?

        /// Connects the two; `room` is how many frames the way from the port to the peer holds on each side.
        init(room: Int = 1000) throws {
            let context = try Context()
            let router = try Socket(.router, in: context)
            try router.set(.routerMandatory, true)
            try router.set(.sendHighWaterMark, room)
            try router.bind("tcp://127.0.0.1:*")
            let address = try router.get(.lastEndpoint)
            let peer = try Socket(.dealer, in: context)
            try peer.set(.receiveHighWaterMark, room)
            try peer.connect(address)
            self.port = try RouterPort(socket: router, monitor: nil, logger: Logger(label: "test"))
            self.peer = peer
            try self.say([Header(.hello)])
            _ = self.receive()
        }

        /// The peer sends frames as one message.
        func say(_ frames: [Header]) throws {
            for (index, header) in frames.enumerated() {
                var frame = Self.frame(header)
                #expect(try self.peer.send(&frame, more: index + 1 < frames.count))
            }
        }

        /// Waits until something has come, and receives it.
        func receive() -> [RouterPort.Arrival] {
            var arrivals: [RouterPort.Arrival] = []
            var looks = 0
            while arrivals.isEmpty, looks < 100 {
                if self.port.isQuiet { _ = self.port.wait(waker: nil, milliseconds: 100) }
                _ = self.port.receive(atMost: 10) { arrival, _ in
                    arrivals.append(arrival)
                    self.name = self.port.route.bytes
                    self.number = self.port.numberedRoute
                }
                looks += 1
            }
            return arrivals
        }

        /// The id of the next message that the peer gets; nil if none comes.
        func next(looks: Int = 100) throws -> UInt64? {
            var message = Message()
            let poll = try self.peer.get(.fileDescriptor)
            var descriptors = DescriptorPoll(capacity: 1)
            for _ in 0..<looks {
                if try self.peer.receive(into: &message) {
                    return try unsafe message.withUnsafeBytes { try unsafe Header(reading: $0).id }
                }
                descriptors.removeAll()
                _ = descriptors.add(poll)
                try descriptors.wait(milliseconds: 20)
            }
            return nil
        }

        static func frame(_ header: Header) -> Message {
            var bytes = [UInt8](repeating: 0, count: Header.byteCount)
            unsafe bytes.withUnsafeMutableBytes { bytes in
                if let base = bytes.baseAddress { unsafe header.write(to: base) }
            }
            return Message(copying: bytes)
        }
    }

    @Test("a frame, what is attached to it, and a message of too many frames are told apart")
    func arrivals() throws {
        let ends = try Ends()
        try ends.say([Header(.ping, id: 1)])
        #expect(ends.receive().map(Self.isFrame) == [true])
        #expect(ends.port.attachedByteCount == nil)
        try ends.say([Header(.ping, id: 1), Header(.ping, id: 2)])
        #expect(ends.receive().map(Self.isFrame) == [true])
        #expect(ends.port.attachedByteCount == Header.byteCount)
        try ends.say([Header(.ping, id: 1), Header(.ping, id: 2), Header(.ping, id: 3), Header(.ping, id: 4)])
        #expect(ends.receive().map(Self.isFrame) == [false])
        // All of it was read: what comes next is the next message.
        try ends.say([Header(.ping, id: 5)])
        #expect(ends.receive().map(Self.isFrame) == [true])
        #expect(ends.number != nil)
    }

    @Test("frames that libzmq has no room for wait, in order, and none is lost or sent twice")
    func parking() throws {
        let ends = try Ends(room: 1)
        var outbox = Outbox(routingID: ends.name)
        var id: UInt64 = 0
        var blocked = 0
        // Large ones, so that the buffers of the connection are full soon.
        let padding = [UInt8](repeating: 0, count: 1 << 20)
        while blocked == 0, id < 1000 {
            id += 1
            var header = Header(.ping, id: id)
            header.payloadLength = UInt32(padding.count)
            unsafe padding.withUnsafeBytes { unsafe outbox.batch.append(header, payload: $0) }
            let sending = ends.port.put(outbox.batch.take(&ends.port.frames), attached: nil, to: &outbox)
            if sending == .blocked { blocked += 1 }
        }
        #expect(blocked == 1)
        var isBlocked = outbox.isBlocked
        #expect(isBlocked)
        let last = id + 1
        let behind = ends.port.put(Ends.frame(Header(.ping, id: last)), attached: nil, to: &outbox)
        #expect(behind == .waiting)
        var received: [UInt64] = []
        var isFree = false
        var looks = 0
        while received.last != last, looks < 200 {
            looks += 1
            // The room that the peer made is known a moment later.
            isFree = ends.port.unpark(&outbox).isFree
            if let next = try ends.next(looks: 1) { received.append(next) }
        }
        #expect(received == Array(1...last))
        #expect(isFree)
        isBlocked = outbox.isBlocked
        #expect(!isBlocked)
    }

    @Test("nothing goes to a connection that was closed, nor to a peer that isn't there")
    func gone() throws {
        let ends = try Ends()
        var outbox = Outbox(routingID: ends.name)
        outbox.connection.introduced(by: 7)
        outbox.connection.closed(7)
        let toClosed = ends.port.put(Ends.frame(Header(.ping, id: 1)), attached: nil, to: &outbox)
        let isBlocked = outbox.isBlocked
        let atOnce = ends.port.tryToSend(Ends.frame(Header(.ping, id: 2)), to: outbox)
        #expect(toClosed == .gone && !isBlocked && atOnce == .gone)
        let toNobody = ends.port.sendDirectly(Ends.frame(Header(.ping, id: 3)), to: [1, 2, 3, 4, 5])
        #expect(toNobody == .gone)
        let toPeer = ends.port.sendDirectly(Ends.frame(Header(.ping, id: 4)), to: ends.name)
        #expect(toPeer == .sent)
        #expect(try ends.next() == 4)
    }

    @Test("a send may use up the news that a message has come: the port looks again before it says that all is quiet")
    func newsUsedUp() throws {
        let ends = try Ends()
        #expect(!ends.port.receive(atMost: 10) { _, _ in })
        #expect(ends.port.isQuiet)
        try ends.say([Header(.ping, id: 1)])
        _ = ends.port.wait(waker: nil, milliseconds: 2000)
        let attempt = ends.port.sendDirectly(Ends.frame(Header(.ping, id: 2)), to: ends.name)
        #expect(attempt == .sent)
        #expect(!ends.port.isQuiet)
        #expect(ends.receive().count == 1)
    }

    private static func isFrame(_ arrival: RouterPort.Arrival) -> Bool {
        if case .frame = arrival { return true }
        return false
    }
}
