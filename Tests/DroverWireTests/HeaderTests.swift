// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@Suite("Header")
struct HeaderTests {
    @Test("each field lies where the specification says, little-endian")
    func layout() {
        var header = Header(
            .request,
            flags: [.idempotent, .metadata],
            payloadLength: 0x0403_0201,
            id: 0x0807_0605_0403_0201,
            time: 0x1413_1211,
            number: 0x2423_2221
        )
        header.contentType = ContentType.raw.rawValue
        var bytes = [UInt8](repeating: 0, count: Header.byteCount)
        unsafe bytes.withUnsafeMutableBytes { buffer in
            if let base = buffer.baseAddress { unsafe header.write(to: base) }
        }
        #expect(
            bytes == [
                0xD1, 17, 0x05, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x23, 0x24,
            ]
        )
    }

    @Test("what is written is read again, for every kind and at the fields' ends", arguments: MessageKind.allCases)
    func roundTrip(_ kind: MessageKind) throws {
        let edges: [(UInt64, UInt32, UInt32)] = [(0, 0, 0), (.max, .max, .max), (1 << 63, 1 << 31, 1)]
        for (id, time, number) in edges {
            let header = Header(kind, flags: [.resent, .mustUnderstand], id: id, time: time, number: number)
            let found = read(message(header))
            #expect(found.error == nil)
            #expect(found.messages.map { $0.header } == [header])
            #expect(found.messages.first?.header.kind == kind)
        }
    }

    @Test("fewer than 24 bytes are no header")
    func truncated() {
        for bytes in message(Header(.beat)).truncations where !bytes.isEmpty {
            let found = read(bytes)
            #expect(found.error?.code == .truncated)
            #expect(found.error?.message == "a message needs 24 bytes, \(bytes.count) are left")
        }
    }

    @Test("another first byte is told apart: another protocol, or another version of this one")
    func firstByte() {
        for first in UInt8.min...UInt8.max where first != ProtocolVersion.firstByte {
            var bytes = message(Header(.beat))
            bytes[0] = first
            let found = read(bytes)
            #expect(found.messages.isEmpty)
            if first >> 4 == 0xD {
                #expect(found.error?.code == .unsupportedVersion)
            } else {
                #expect(found.error?.code == .notDrover)
            }
        }
        var bytes = message(Header(.beat))
        bytes[0] = 0x47
        #expect(
            read(bytes).error?.description
                == "the first byte is 0x47: the peer does not speak Drover's protocol"
        )
        bytes[0] = 0xD2
        #expect(
            read(bytes).error?.description
                == "the peer speaks version 2, this side version 1: update the older one"
        )
    }

    @Test("a kind that this version doesn't know is read, so that it can be skipped")
    func unknownKind() {
        for raw in UInt8.min...UInt8.max where MessageKind(rawValue: raw) == nil {
            var bytes = message(Header(.beat, id: 7), [1, 2, 3])
            bytes[1] = raw
            let found = read(bytes + message(Header(.beat, id: 8)))
            #expect(found.error == nil)
            #expect(found.messages.map { $0.header.id } == [7, 8])
            #expect(found.messages.first?.header.kind == nil)
            #expect(found.messages.first?.header.rawKind == raw)
        }
    }

    @Test("unknown flags are kept and disturb nothing")
    func unknownFlags() {
        let flags = Header.Flags(rawValue: 0x70)
        let found = read(message(Header(.request, flags: flags, id: 1), [0x90]))
        #expect(found.messages.map { $0.header.flags } == [flags])
    }

    @Test("the numbers on the wire never change")
    func numbers() {
        let kinds: [MessageKind] = [
            .hello, .welcome, .reset, .goodbye, .beat, .ping, .pong, .refused, .part, .partTaken, .partEnded, .define,
            .request,
            .reply, .error,
            .cancel, .accepted, .started, .progress, .cancelled, .deadline, .event, .invoke, .ended, .flow, .pending,
            .offer, .ready, .credit, .bind, .control, .caller, .origin,
        ]
        #expect(kinds.map { $0.rawValue } == [UInt8](1...11) + [UInt8](16...25) + [UInt8](32...36) + [UInt8](48...54))
        #expect(kinds.count == MessageKind.allCases.count)
        let flags: [Header.Flags] = [.idempotent, .resent, .metadata, .attached, .mustUnderstand]
        #expect(flags.map { $0.rawValue } == [1, 2, 4, 8, 0x80])
        #expect([ContentType.messagePack, .json, .raw, .chunk].map { $0.rawValue } == [0, 1, 2, 3])
        #expect([GoodbyeReason.draining, .leaving].map { $0.rawValue } == [0, 1])
        #expect([CancelReason.requested, .expired, .recalled].map { $0.rawValue } == [0, 1, 2])
        #expect([ReadyState.quiet, .starved].map { $0.rawValue } == [1, 2])
        #expect([ControlOrder.quiet, .resume, .stop].map { $0.rawValue } == [1, 2, 3])
        #expect([CancelledStage.beforeStart, .whileRunning, .unknown, .lapsed].map { $0.rawValue } == [0, 1, 2, 3])
        #expect(Header.noTimeLimit == 0xFFFF_FFFF)
    }
}
