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

    @Test("a line that is known to be quick takes larger parts, and messages of some megabytes whole, until it is slow")
    func wholeMessages() {
        var window = PartWindow()
        #expect(window.wholeBytes == 1 << 20 && window.partBytes == 128 << 10)
        var now: UInt64 = 0
        for part in 1...60 {
            window.sent(1, end: part, count: PartWindow.partBytes, at: Self.at(now))
            now += 1
            window.acknowledged(1, end: part, at: Self.at(now))
        }
        #expect(window.wholeBytes == 4 << 20 && window.partBytes == 1 << 20)
        for part in 61...62 {
            window.sent(1, end: part, count: window.partBytes, at: Self.at(now))
            now += 300
            window.acknowledged(1, end: part, at: Self.at(now))
        }
        #expect(window.wholeBytes == 1 << 20 && window.partBytes == 128 << 10)
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
            case .messages(let bytes): parts.append("\(bytes)")
            case .ended(let transfer): parts.append("end \(transfer)")
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

    @Test("an answer has been read when its last part is acknowledged, or isn't wanted")
    func settled() {
        var queue = PartQueue<String>()
        for id in 1...3 as ClosedRange<UInt64> {
            queue.add(Header(.reply, payloadLength: 10, id: 70 + id), deadline: nil, "\(id)")
        }
        queue.add(Self.request(8, 10), deadline: nil, "4")
        _ = Self.take(&queue)
        for transfer in 1...4 as ClosedRange<UInt64> {
            let granted = queue.settledAnswer(transfer, end: Header.byteCount)
            #expect(granted == nil)
            if transfer != 3 { queue.acknowledged(transfer, end: Header.byteCount, at: Self.at(0)) }
        }
        _ = Self.take(&queue)
        let whole = queue.settledAnswer(1, end: Header.byteCount + 10)
        let twice = queue.settledAnswer(1, end: Header.byteCount + 10)
        #expect(whole == 71 && twice == nil)
        let request = queue.settledAnswer(4, end: Header.byteCount + 10)
        #expect(request == nil)
        let refused = queue.settledAnswer(3, end: Header.byteCount, isWanted: false)
        #expect(refused == 73)
        queue.cancel({ $0 == .reply }, id: 72)
        let cancelled = queue.settledAnswer(2, end: Header.byteCount + 10)
        #expect(cancelled == nil)
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
        let told = Self.take(&queue)
        #expect(told == ["end 1"], "the other side refused the other one itself")
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test(
        "a transfer that is given up is said to be, before another begins; what was not begun, or goes by another connection, isn't"
    )
    func abandoned() {
        var queue = PartQueue<String>()
        for id in 1...6 as ClosedRange<UInt64> { queue.add(Self.request(id, 10), deadline: nil, "\(id)") }
        _ = Self.take(&queue)
        for id in [2, 6] as [UInt64] { queue.cancel({ $0 == .request }, id: id) }
        let isEmpty = queue.isEmpty
        #expect(!isEmpty)
        let next = Self.take(&queue)
        #expect(next == ["end 2", "5: 1000"])
        queue.reset(isSameConnection: true)
        let ends = Self.take(&queue)
        #expect(ends == ["end 1", "end 3", "end 4", "end 5"])
        queue.add(Self.request(7, 10), deadline: nil, "7")
        _ = Self.take(&queue)
        queue.cancel({ $0 == .request }, id: 7)
        queue.reset()
        let isOver = queue.isEmpty
        #expect(isOver)
    }

    @Test("a long transfer outlives any number that begin beside it and are given up")
    func outlives() throws {
        var queue = PartQueue<String>()
        var assembly = PartAssembly<String>()
        let count = 100 * PartWindow.partBytes
        func reply(_ id: UInt64, _ bytes: Int) -> Header { Header(.reply, payloadLength: UInt32(bytes), id: id) }
        queue.add(reply(1, count), deadline: nil, "long")
        var (isWhole, next): (Bool, UInt64) = (false, 2)
        for _ in 0..<2000 where !isWhole {
            // Others begin and are cancelled, by whoever waits for them.
            for _ in 0..<2 {
                queue.add(reply(next, 10 * PartWindow.partBytes), deadline: nil, "short")
                if next > 5 { queue.cancel({ $0 == .reply }, id: next - 3) }
                next += 1
            }
            // What may go out goes, as the loops do it, though not all at once.
            for _ in 0..<8 {
                switch queue.next(at: Self.at(0)) {
                case .header(let header, let transfer):
                    let dropped = assembly.begin(transfer, header, deadline: .distantFuture, in: "")
                    #expect(dropped == 0)
                    queue.acknowledged(transfer, end: Header.byteCount, at: Self.at(0))
                case .payload(_, let range, let transfer, let end):
                    let start = end - range.count
                    let place = try Self.place(&assembly, transfer, offset: start, count: range.count, at: 0)
                    queue.acknowledged(transfer, end: end, isWanted: place != nil, at: Self.at(0))
                    if place?.whole?.id == 1 { isWhole = true }
                case .ended(let transfer): assembly.end(transfer)
                case .messages, nil: break
                }
            }
        }
        #expect(isWhole)
    }

    @Test("of a sender that doesn't say what it gives up, those that go on are kept")
    func silentEnds() throws {
        var assembly = PartAssembly<String>()
        _ = assembly.begin(1, Self.request(1, 1000), deadline: .distantFuture, in: "")
        for id in 2...20 as ClosedRange<UInt64> {
            _ = assembly.begin(id, Self.request(id, 100), deadline: .distantFuture, in: "")
            let place = try Self.place(&assembly, 1, offset: 24 + 10 * Int(id - 2), count: 10, at: 0)
            #expect(place != nil)
        }
    }

    private static func event(_ subscription: UInt32, _ bytes: Int = 10) -> Header {
        Header(.event, payloadLength: UInt32(bytes), number: subscription)
    }

    /// The other side has room for the messages of these transfers.
    private static func grant(_ transfers: UInt64..., in queue: inout PartQueue<String>) {
        for transfer in transfers { queue.acknowledged(transfer, end: Header.byteCount, at: Self.at(0)) }
    }

    @Test("what follows an event in parts waits for it, other subscriptions and other calls don't")
    func streams() {
        var queue = PartQueue<String>()
        let isFree = !queue.hold([1], in: .subscription(1))
        #expect(isFree, "nothing is before it")
        queue.add(Self.event(1), deadline: nil, "a")
        queue.add(Self.event(1), deadline: nil, "b")
        let held = [
            queue.hold([2], in: .subscription(1)), queue.hold([3], in: .subscription(1)),
            queue.hold([4], in: .subscription(2)), queue.hold([5], in: .request(1)),
            queue.hold([6], of: 9, isBehindEvents: false), queue.hold([7], of: 9, isBehindEvents: true),
        ]
        #expect(held == [true, true, false, false, false, true])
        queue.add(Self.event(2), deadline: nil, "c")
        let headers = Self.take(&queue)
        #expect(headers == ["1: 0", "3: 0"], "the next event of a subscription is begun when this one has gone")
        Self.grant(1, in: &queue)
        let first = Self.take(&queue)
        #expect(first == ["a 0", "2: 0"])
        Self.grant(2, 3, in: &queue)
        let rest = Self.take(&queue)
        #expect(rest == ["c 0", "b 0", "[2, 3]", "[7]"])
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test("an answer waits for the events before it in all subscriptions, not for those after it")
    func answers() {
        var queue = PartQueue<String>()
        queue.add(Self.event(1), deadline: nil, "a")
        queue.add(Self.event(2), deadline: nil, "b")
        queue.add(Header(.progress, payloadLength: 10, id: 9), deadline: nil, "p")
        queue.add(Header(.reply, payloadLength: 10, id: 9), deadline: nil, "r", isBehindEvents: true)
        queue.add(Header(.reply, payloadLength: 10, id: 8), deadline: nil, "s", isBehindEvents: false)
        queue.add(Self.event(1), deadline: nil, "c")
        let isHeld = queue.hold([8], of: 9, isBehindEvents: false)
        #expect(isHeld, "behind what was told of its request")
        _ = Self.take(&queue)
        Self.grant(1, 2, 3, 5, in: &queue)
        let sent = Self.take(&queue)
        #expect(sent == ["a 0", "6: 0", "b 0", "p 0", "[8]", "4: 0", "s 0"])
        Self.grant(4, 6, in: &queue)
        let last = Self.take(&queue)
        #expect(last == ["c 0", "r 0"])
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test("S9 a small request of an ordering key waits behind a large one of it, with the time that is left then")
    func keys() {
        var queue = PartQueue<String>()
        queue.add(Self.request(1, 100), deadline: nil, "a", in: .key(7))
        let isUnderWay = [queue.isUnderWay(.key(7)), queue.isUnderWay(.key(8))]
        #expect(isUnderWay == [true, false])
        for id in 2...4 as ClosedRange<UInt64> {
            queue.add(Self.request(id, 10), deadline: Self.at(1000), "\(id)", in: .key(7))
        }
        queue.move(3, to: Self.at(2000))
        let isKnown = queue.cancel({ $0 == .request }, id: 2)
        #expect(isKnown)
        let first = Self.take(&queue)
        #expect(first == ["1: 1000"])
        Self.grant(1, in: &queue)
        let second = Self.take(&queue, at: 500)
        #expect(second == ["a 0", "3: 1500"])
        Self.grant(3, in: &queue)
        let third = Self.take(&queue, at: 600)
        #expect(third == ["3 0", "4: 400"])
    }

    @Test("what nobody wants any more holds nothing up")
    func unwantedStreams() {
        var queue = PartQueue<String>()
        queue.add(Self.event(1), deadline: nil, "a")
        queue.add(Header(.progress, payloadLength: 10, id: 9), deadline: nil, "p")
        queue.add(Header(.progress, payloadLength: 10, id: 9), deadline: nil, "q")
        queue.add(Header(.reply, payloadLength: 10, id: 9), deadline: nil, "r", isBehindEvents: true)
        let isHeld = [queue.hold([1], in: .subscription(1)), queue.hold([2], in: .request(9))]
        #expect(isHeld == [true, true])
        _ = Self.take(&queue)
        queue.acknowledged(1, end: Header.byteCount, isWanted: false, at: Self.at(0))
        let isKnown = queue.cancel({ $0 == .progress || $0 == .reply }, id: 9)
        #expect(isKnown)
        let rest = Self.take(&queue)
        #expect(rest == ["end 2", "[1]", "[2]"])
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }

    @Test("what waits in streams and behind events counts as not gone out, until it goes or is dropped")
    func unsentBytes() {
        var queue = PartQueue<Int>()
        let event = Header(.event, payloadLength: 1000, number: 1)
        let header = Header.byteCount
        func expect(_ count: Int, _ queue: borrowing PartQueue<Int>, at line: SourceLocation = #_sourceLocation) {
            let unsent = queue.unsentBytes
            #expect(unsent == count, sourceLocation: line)
        }
        queue.add(event, deadline: nil, 0)
        queue.add(event, deadline: nil, 0)
        expect(2 * (1000 + header), queue)
        let isHeld = queue.hold([UInt8](repeating: 0, count: 300), in: .subscription(1))
        let isOtherHeld = queue.hold([UInt8](repeating: 0, count: 300), in: .subscription(2))
        let isAnswerHeld = queue.hold([UInt8](repeating: 0, count: 50), of: 7, isBehindEvents: true)
        #expect(isHeld && !isOtherHeld && isAnswerHeld)
        queue.add(Header(.reply, payloadLength: 500, id: 8), deadline: nil, 0, isBehindEvents: true)
        expect(2 * (1000 + header) + 300 + 50 + 500 + header, queue)
        let isDropped = queue.cancel({ $0 == .reply }, id: 8)
        #expect(isDropped)
        expect(2 * (1000 + header) + 300 + 50, queue)
        _ = queue.next(at: Self.at(0))
        queue.acknowledged(1, end: header, at: Self.at(0))
        _ = queue.next(at: Self.at(0))
        expect(1000 + header + 300 + 50, queue)
        // The second one isn't wanted there.
        _ = queue.next(at: Self.at(1))
        queue.acknowledged(2, end: header, isWanted: false, at: Self.at(1))
        expect(350, queue)
        while queue.next(at: Self.at(2)) != nil {}
        expect(0, queue)
        queue.add(event, deadline: nil, 0)
        queue.reset()
        expect(0, queue)
    }

    @Test("whatever is large, refused or cancelled, each stream keeps its order and nothing stays")
    func order() {
        for seed in 1...300 as ClosedRange<UInt64> {
            var state = seed &* 0x9E37_79B9_7F4A_7C15
            func random(_ limit: Int) -> Int {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int(state >> 33) % limit
            }
            var queue = PartQueue<String>()
            var (said, heard) = ([[String]](repeating: [], count: 3), [[String]](repeating: [], count: 3))
            func hear(_ text: String) {
                let stream = Int(text.prefix(1)) ?? 0
                heard[stream].append(text)
            }
            func deliver() {
                while let part = queue.next(at: Self.at(0)) {
                    switch part {
                    case .header(_, let transfer): Self.grant(transfer, in: &queue)
                    case .payload(let source, let range, let transfer, let end):
                        if range.upperBound == PartWindow.partBytes + 1 { hear(source) }
                        if random(3) > 0 { queue.acknowledged(transfer, end: end, at: Self.at(1)) }
                    case .ended: break
                    case .messages(let bytes):
                        for text in String(decoding: bytes, as: UTF8.self).split(separator: ",") { hear(String(text)) }
                    }
                    if random(8) == 0 { return }
                }
            }
            for number in 0..<60 {
                let stream = random(3)
                let text = "\(stream):\(number)"
                said[stream].append(text)
                if random(4) == 0 {
                    queue.add(Self.event(UInt32(stream), PartWindow.partBytes + 1), deadline: nil, text)
                } else if !queue.hold([UInt8]((text + ",").utf8), in: .subscription(UInt32(stream))) {
                    hear(text)
                }
                if random(3) == 0 { deliver() }
            }
            for _ in 0..<400 where !queue.isEmpty {
                deliver()
                // What is under way arrives.
                for transfer in 1...60 as ClosedRange<UInt64> {
                    for end in [PartWindow.partBytes + Header.byteCount, PartWindow.partBytes + 1 + Header.byteCount] {
                        queue.acknowledged(transfer, end: end, at: Self.at(1))
                    }
                }
            }
            let isEmpty = queue.isEmpty
            let unsent = queue.unsentBytes
            #expect(isEmpty && unsent == 0 && heard == said, "seed \(seed)")
        }
    }

    /// A part comes; requests' times count from `origin`, or else from then.
    private static func place(
        _ assembly: inout PartAssembly<String>,
        _ id: UInt64,
        offset: Int,
        count: Int,
        origin: UInt64? = nil,
        at now: UInt64
    ) throws(WireError) -> PartAssembly<String>.Place? {
        try assembly.place(id, offset: offset, count: count, countedFrom: Self.at(origin ?? now), at: Self.at(now))
    }

    @Test("S28 what a request's first part spent under way is taken off once, whatever stamp its last comes behind")
    func stamped() throws {
        var assembly = PartAssembly<String>()
        for id in 1...3 as ClosedRange<UInt64> {
            _ = assembly.begin(id, Self.request(id, 8), deadline: Self.at(1000), in: "")
        }
        // Whatever it is counted from, it ends at 1000.
        let same = try Self.place(&assembly, 1, offset: 24, count: 8, origin: 300, at: 700)
        #expect(same?.whole?.time == 700)
        let later = try Self.place(&assembly, 2, offset: 24, count: 8, origin: 690, at: 700)
        #expect(later?.whole?.time == 310)
        let over = try Self.place(&assembly, 3, offset: 24, count: 8, origin: 690, at: 1000)
        #expect(over?.whole?.time == 0)
    }

    @Test("a message is whole with its last part, and its time has run since its first")
    func whole() throws {
        var assembly = PartAssembly<String>()
        let dropped = assembly.begin(9, Self.request(1, 30), deadline: Self.at(1100), in: "a")
        #expect(dropped == 0)
        let first = try Self.place(&assembly, 9, offset: 24, count: 20, at: 200)
        #expect(first?.buffer == "a" && first?.offset == 24 && first?.whole == nil)
        let last = try Self.place(&assembly, 9, offset: 44, count: 10, at: 400)
        #expect(last?.whole == Self.request(1, 30, time: 700))
        let isEmpty = assembly.isEmpty
        #expect(isEmpty)
    }

    @Test("a message that is begun again takes the place of what came of it, and a fifth that of the oldest")
    func begunAgain() throws {
        var assembly = PartAssembly<String>()
        for id in 1...4 as ClosedRange<UInt64> {
            let dropped = assembly.begin(id, Self.request(id, 8), deadline: Self.at(1000), in: "\(id)")
            #expect(dropped == 0)
        }
        let again = assembly.begin(5, Self.request(3, 8), deadline: Self.at(1000), in: "5")
        let fifth = assembly.begin(6, Self.request(6, 8), deadline: Self.at(1000), in: "6")
        #expect(again == 1 && fifth == 1)
        for (transfer, buffer) in [(1, nil), (2, "2"), (3, nil), (4, "4"), (5, "5"), (6, "6")] as [(UInt64, String?)] {
            let place = try Self.place(&assembly, transfer, offset: 24, count: 8, at: 0)
            #expect(place?.buffer == buffer)
        }
    }

    @Test("a request whose time was over under way has none left, and a moved deadline holds")
    func late() throws {
        var assembly = PartAssembly<String>()
        for id in 1...2 as ClosedRange<UInt64> {
            _ = assembly.begin(id, Self.request(id, 8), deadline: Self.at(1000), in: "")
        }
        let isKnown = assembly.move(2, to: Self.at(4500))
        #expect(isKnown)
        let first = try Self.place(&assembly, 1, offset: 24, count: 8, at: 5000)
        #expect(first?.whole?.time == 0)
        let second = try Self.place(&assembly, 2, offset: 24, count: 8, at: 4100)
        #expect(second?.whole?.time == 400)
    }

    @Test("a part that doesn't fit ends its message", arguments: [(25, 4), (24, 0), (24, 31)])
    func broken(offset: Int, count: Int) throws {
        var assembly = PartAssembly<String>()
        _ = assembly.begin(9, Self.request(1, 30), deadline: Self.at(1000), in: "")
        var error: WireError?
        do throws(WireError) { _ = try Self.place(&assembly, 9, offset: offset, count: count, at: 0) } catch let caught
        {
            error = caught
        }
        #expect(error?.code == .badFraming)
        let after = try Self.place(&assembly, 9, offset: 24, count: 10, at: 0)
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
