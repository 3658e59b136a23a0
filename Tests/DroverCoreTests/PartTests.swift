// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

/// Messages in parts: how many bytes are under way, whose turn it is, how they are put together.
@Suite struct PartTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    /// A line that takes so many bytes a millisecond, one part behind the other, with parts of one message.
    ///
    /// - Returns: The most bytes that were under way in the second half, and how long it took for all.
    private static func run(bytes: Int, rate: Int, delay: UInt64) -> (most: Int, milliseconds: UInt64, limit: Int) {
        var window = PartWindow()
        var underWay: [(end: Int, arrival: UInt64)] = []
        var sent = 0
        var lineFreeAt: UInt64 = 0
        var now: UInt64 = 0
        var most = 0
        while sent < bytes || !underWay.isEmpty {
            while sent < bytes, window.isOpen {
                sent += PartWindow.partBytes
                lineFreeAt = max(lineFreeAt, now) + UInt64(PartWindow.partBytes / rate)
                window.sent(1, end: sent, count: PartWindow.partBytes, at: Self.at(now))
                underWay.append((sent, lineFreeAt + delay))
                if sent > bytes / 2 { most = max(most, window.bytes) }
            }
            let first = underWay.removeFirst()
            now = max(now, first.arrival)
            window.acknowledged(1, end: first.end, at: Self.at(now))
        }
        return (most, now, window.limit)
    }

    @Test("on a quick line the window opens as far as it may")
    func quick() {
        let run = Self.run(bytes: 64 << 20, rate: 1 << 20, delay: 0)
        #expect(run.limit == 8 << 20)
    }

    @Test("on a line of 20 Mbit/s what is under way takes a fraction of a second, and the line is never idle")
    func slow() {
        let bytes = 30_000_000
        let run = Self.run(bytes: bytes, rate: 2500, delay: 20)
        #expect(run.most <= 1 << 20, "a small call waits behind \(run.most) bytes")
        #expect(run.milliseconds < UInt64(bytes / 2500) * 11 / 10, "it took \(run.milliseconds) ms")
    }

    @Test("a part may always be sent if nothing is under way, and what nobody sent is not acknowledged")
    func one() {
        var window = PartWindow()
        #expect(window.isOpen)
        let isKnown = window.acknowledged(1, end: 5, at: Self.at(0))
        #expect(!isKnown)
        for part in 1...4 { window.sent(1, end: part, count: PartWindow.partBytes, at: Self.at(0)) }
        #expect(!window.isOpen)
        let isLast = window.acknowledged(1, end: 4, at: Self.at(1))
        #expect(isLast, "the others arrived before it")
        #expect(window.bytes == 0)
    }

    private static func request(_ id: UInt64, _ bytes: Int, time: UInt32 = 1000) -> Header {
        Header(.request, payloadLength: UInt32(bytes), id: id, time: time)
    }

    /// What is sent now, as text: the message and where its part ends.
    private static func take(_ queue: inout PartQueue<String>, at now: UInt64 = 0) -> [String] {
        var parts: [String] = []
        while let part = queue.next(at: Self.at(now)) {
            switch part {
            case .header(let header, let transfer): parts.append("\(transfer): \(header.time)")
            case .payload(let source, let range, _, _): parts.append("\(source) \(range.lowerBound)")
            }
        }
        return parts
    }

    @Test("messages take turns, their headers first, and payloads go when there is room for them")
    func turns() {
        let part = PartWindow.partBytes
        var queue = PartQueue<String>()
        queue.add(Self.request(7, 3 * part), deadline: nil, "a")
        queue.add(Self.request(8, part), deadline: Self.at(500), "b")
        let headers = Self.take(&queue, at: 100)
        #expect(headers == ["1: 1000", "2: 400"])
        queue.acknowledged(2, end: Header.byteCount, at: Self.at(0))
        queue.acknowledged(1, end: Header.byteCount, at: Self.at(0))
        let payloads = Self.take(&queue)
        #expect(payloads == ["a 0", "b 0", "a \(part)", "a \(2 * part)"])
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test("four messages are under way at once, others wait in order and go with the time that is left then")
    func four() {
        var queue = PartQueue<String>()
        for id in 1...5 as ClosedRange<UInt64> { queue.add(Self.request(id, 10), deadline: Self.at(1000), "\(id)") }
        let headers = Self.take(&queue)
        #expect(headers == ["1: 1000", "2: 1000", "3: 1000", "4: 1000"])
        queue.move(5, to: Self.at(2000))
        queue.acknowledged(3, end: Header.byteCount, at: Self.at(200))
        let next = Self.take(&queue, at: 200)
        #expect(next == ["3 0", "5: 1800"])
    }

    @Test("what is cancelled, or not wanted there, goes no further")
    func cancelled() {
        var queue = PartQueue<String>()
        queue.add(Self.request(1, 10), deadline: nil, "a")
        queue.add(Self.request(2, 10), deadline: nil, "b")
        _ = Self.take(&queue)
        queue.acknowledged(1, end: Header.byteCount, at: Self.at(0))
        queue.acknowledged(2, end: Header.byteCount, isWanted: false, at: Self.at(0))
        let other = queue.cancel({ $0 == .reply }, id: 1)
        #expect(!other, "another kind of the same number")
        let own = queue.cancel({ $0 == .request }, id: 1)
        #expect(own)
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test("a message is whole with its last part, and its time counts from its first")
    func whole() throws {
        var assembly = PartAssembly<String>()
        let begins = assembly.begin(9, Self.request(1, 30), in: "a", at: Self.at(100))
        #expect(begins)
        let first = try assembly.place(9, offset: 24, count: 20, at: Self.at(200))
        #expect(first?.buffer == "a" && first?.offset == 24 && first?.whole == nil)
        let last = try assembly.place(9, offset: 44, count: 10, at: Self.at(400))
        #expect(last?.whole == Self.request(1, 30, time: 700))
        let isEmpty = assembly.isEmpty
        #expect(isEmpty)
    }

    @Test("a request whose time was over under way has none left, and a moved deadline counts from its move")
    func late() throws {
        var assembly = PartAssembly<String>()
        for id in 1...2 as ClosedRange<UInt64> {
            _ = assembly.begin(id, Self.request(id, 8), in: "", at: Self.at(0))
        }
        let isKnown = assembly.move(2, time: 500, at: Self.at(4000))
        #expect(isKnown)
        let first = try assembly.place(1, offset: 24, count: 8, at: Self.at(5000))
        #expect(first?.whole?.time == 0)
        let second = try assembly.place(2, offset: 24, count: 8, at: Self.at(4100))
        #expect(second?.whole?.time == 400)
    }

    @Test("a part that doesn't fit ends its message", arguments: [(25, 4), (24, 0), (24, 31)])
    func broken(offset: Int, count: Int) throws {
        var assembly = PartAssembly<String>()
        _ = assembly.begin(9, Self.request(1, 30), in: "", at: Self.at(0))
        var error: WireError?
        do throws(WireError) { _ = try assembly.place(9, offset: offset, count: count, at: Self.at(0)) } catch let
            caught
        {
            error = caught
        }
        #expect(error?.code == .badFraming)
        let after = try assembly.place(9, offset: 24, count: 10, at: Self.at(0))
        #expect(after?.offset == nil, "nothing belongs to it any more")
    }

    @Test("the smallest value of the last while")
    func smallest() {
        var minimum = WindowedMinimum(periodNanoseconds: 1_000_000_000)
        let value0 = minimum.add(5, at: Self.at(0))
        #expect(value0 == 5)
        let value1 = minimum.add(9, at: Self.at(1100))
        #expect(value1 == 5)
        let value2 = minimum.add(8, at: Self.at(2200))
        #expect(value2 == 8)
    }
}
