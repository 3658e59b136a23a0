// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@Suite("FrameReader")
struct FrameReaderTests {
    private static let frame =
        message(Header(.define, number: 3), Array("echo".utf8))
        + message(Header(.request, id: 9, time: 5000, number: 3), [0x91, 0x07])
        + message(Header(.beat, id: 1))

    @Test("messages that share a frame come out one by one, in order")
    func coalesced() {
        let found = read(Self.frame)
        #expect(found.error == nil)
        #expect(found.messages.map { $0.header.kind } == [.define, .request, .beat])
        #expect(found.messages.map { $0.payload } == [Array("echo".utf8), [0x91, 0x07], []])
    }

    @Test("S76 events in a row are found at once, and what is none of them is left to be read")
    func rows() throws {
        func event(_ sequence: UInt64, of subscription: UInt32 = 7, flags: Header.Flags = []) -> [UInt8] {
            var header = Header(.event, id: sequence, number: subscription)
            header.flags = flags
            return message(header, [0x91, UInt8(truncatingIfNeeded: sequence)])
        }
        let row = event(3) + event(4) + event(5)
        let others = [
            event(7), event(6, of: 8), event(6, flags: .attached), message(Header(.reply, id: 6, number: 7)),
            Array(event(6).dropLast()), Array(event(6).prefix(20)), [],
        ]
        for other in others {
            let bytes = row + other
            unsafe bytes.withUnsafeBytes { bytes in
                var reader = unsafe FrameReader(bytes)
                #expect(reader.nextEvent(of: 7, sequence: 4) == nil)
                #expect(reader.mostMessagesLeft(ofPayload: 2) >= 3)
                var found: [UInt8] = []
                var next: UInt64 = 3
                while let payload = reader.nextEvent(of: 7, sequence: next) {
                    unsafe found.append(bytes[payload.upperBound - 1])
                    next += 1
                }
                #expect(found == [3, 4, 5])
                #expect(reader.mostMessagesLeft(ofPayload: 0) == other.count / Header.byteCount)
                #expect(reader.lastHeader == nil)
            }
        }
        unsafe row.withUnsafeBytes { bytes in
            var limits = WireLimits.standard
            limits.maxPayloadBytes = 1
            var reader = unsafe FrameReader(bytes, limits: limits)
            #expect(reader.nextEvent(of: 7, sequence: 3) == nil)
        }
    }

    @Test("an empty frame holds no message")
    func empty() {
        let found = read([])
        #expect(found.messages.isEmpty)
        #expect(found.error == nil)
    }

    @Test("S73 a frame that is cut off gives what came whole, then an error")
    func truncations() {
        let ends = [0, 28, 54, 78]
        for cut in Self.frame.truncations {
            let found = read(cut)
            #expect(found.messages.count == ends.lastIndex { $0 <= cut.count })
            #expect((found.error == nil) == ends.contains(cut.count))
            if let error = found.error { #expect(error.code == .truncated) }
        }
    }

    @Test("S73 no flipped bit makes the reader fail otherwise than by its error")
    func flips() {
        for frame in Self.frame.withOneBitFlipped {
            let found = read(frame)
            #expect(found.messages.count <= 3)
            if found.error == nil { #expect(found.messages.reduce(0) { $0 + 24 + $1.payload.count } == frame.count) }
            _ = read(frame, attached: [1])
        }
    }

    @Test("S73 after an error the broken message's header is known if it could be read")
    func lastHeader() {
        let whole = message(Header(.beat, id: 1)) + message(Header(.request, id: 9), [1, 2, 3])
        #expect(read(Array(whole.dropLast())).lastHeader?.id == 9)
        #expect(read(Array(whole.prefix(40))).lastHeader == nil)
    }

    @Test("after an error the reader stays at the broken message")
    func staysBroken() throws {
        let bytes = Array(message(Header(.request, id: 9), [1, 2, 3]).dropLast())
        unsafe bytes.withUnsafeBytes { bytes in
            var reader = unsafe FrameReader(bytes)
            for _ in 0..<3 { #expect(throws: WireError.self) { try reader.next() } }
        }
    }

    // MARK: Limits

    @Test("a payload at the limit is read, one byte more is refused before it is looked at")
    func payloadLimit() {
        var limits = WireLimits()
        limits.maxPayloadBytes = 3
        #expect(read(message(Header(.reply), [1, 2, 3]), limits: limits).error == nil)
        let found = read(message(Header(.reply, id: 5), [1, 2, 3, 4]), limits: limits)
        #expect(found.error == WireError(.tooLarge, "a payload of 4 bytes is over the limit of 3 bytes"))
        #expect(found.lastHeader?.id == 5)
        var huge = message(Header(.reply))
        huge.replaceSubrange(4..<8, with: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(read(huge).error?.code == .tooLarge)
    }

    @Test("the limit holds for an attached payload too")
    func attachedLimit() {
        var limits = WireLimits()
        limits.maxPayloadBytes = 3
        #expect(read(Self.announcing(4), attached: [1, 2, 3, 4], limits: limits).error?.code == .tooLarge)
    }

    // MARK: Attached payload

    private static func announcing(_ count: UInt32) -> [UInt8] {
        message(Header(.request, id: 4)).replacing(flags: .attached, length: count)
    }

    @Test("the last message's payload may be the second frame")
    func attached() {
        let found = read(message(Header(.beat, id: 1)) + Self.announcing(3), attached: [7, 8, 9])
        #expect(found.error == nil)
        #expect(found.messages.map { $0.header.id } == [1, 4])
        #expect(found.messages.last?.payload == [7, 8, 9])
        #expect(read(Self.announcing(0), attached: []).error == nil)
    }

    @Test("S73 a second frame must be announced, by the last message, with its length")
    func badAttachments() {
        let cases: [([UInt8], [UInt8]?, String)] = [
            (Self.announcing(3), nil, "missing"),
            (Self.announcing(3) + message(Header(.beat)), [7, 8, 9], "not announced by the last message"),
            (Self.announcing(3), [7, 8], "the attached payload has 2 bytes, not 3"),
            (Self.announcing(3) + Self.announcing(3), [7, 8, 9], "not announced by the last message"),
            (message(Header(.beat)), [7, 8, 9], "a second frame came that no message announced"),
            ([], [7, 8, 9], "a second frame came that no message announced"),
        ]
        for (frame, attached, text) in cases {
            let error = read(frame, attached: attached).error
            #expect(error?.code == .badFraming)
            #expect(error?.message.contains(text) == true, "\(error?.message ?? "no error") should say: \(text)")
        }
    }

    @Test("S73 a surplus frame is not laid at the door of the message before it, which was whole")
    func surplusFrameNamesNobody() {
        let found = read(message(Header(.request, id: 9), [0x90]), attached: [1])
        #expect(found.messages.map { $0.header.id } == [9])
        #expect(found.error?.code == .badFraming)
        #expect(found.lastHeader == nil)
    }
}

extension [UInt8] {
    /// A lone header with other flags and another length.
    fileprivate func replacing(flags: Header.Flags, length: UInt32) -> [UInt8] {
        var copy = self
        copy[2] = flags.rawValue
        for index in 0..<4 { copy[4 + index] = UInt8(truncatingIfNeeded: length >> (8 * index)) }
        return copy
    }
}
