// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct NewcomersTests {
    private static func connection(_ descriptor: CInt, _ cookie: UInt64) -> Newcomers.Connection {
        Newcomers.Connection(descriptor: descriptor, cookie: cookie)
    }

    @Test("of those who say nothing the oldest goes when there are too many, and who has spoken stays")
    func oldest() {
        var newcomers = Newcomers(descriptors: 40)
        #expect(newcomers.limit == 10)
        for number in 1...10 as ClosedRange<CInt> {
            let closed = newcomers.came(Self.connection(number, UInt64(number)))
            #expect(closed == nil)
        }
        newcomers.left(1)
        newcomers.left(3)
        for (number, oldest) in [(11, nil), (12, nil), (13, 2), (14, 4)] as [(CInt, CInt?)] {
            let closed = newcomers.came(Self.connection(number, UInt64(number)))
            #expect(closed?.descriptor == oldest)
        }
        #expect(newcomers.count == 10)
    }

    @Test("when there are too many connections in all the oldest newcomer goes for each that comes, if need be itself")
    func full() {
        var newcomers = Newcomers(descriptors: 400)
        let first = newcomers.came(Self.connection(1, 1))
        #expect(first == nil)
        let second = newcomers.came(Self.connection(2, 2), isFull: true)
        #expect(second == Self.connection(1, 1))
        newcomers.left(2)
        let third = newcomers.came(Self.connection(3, 3), isFull: true)
        #expect(third == Self.connection(3, 3) && newcomers.count == 0)
    }

    @Test("a descriptor that is another connection's by now is not taken for the former")
    func reused() {
        var newcomers = Newcomers(descriptors: 32)
        _ = newcomers.came(Self.connection(5, 1))
        newcomers.left(5)
        for number in 10..<17 as Range<CInt> { _ = newcomers.came(Self.connection(number, UInt64(number))) }
        _ = newcomers.came(Self.connection(5, 2))
        let again = newcomers.came(Self.connection(5, 2))
        #expect(again == nil && newcomers.count == 8)
        let oldest = newcomers.came(Self.connection(20, 20))
        #expect(oldest == Self.connection(10, 10))
    }

    @Test("when descriptors run short half of them go, and their line doesn't grow with those who have left")
    func shortage() {
        var newcomers = Newcomers(descriptors: 400)
        for number in 0..<100_000 as Range<UInt64> {
            let descriptor = CInt(number % 50)
            newcomers.left(descriptor)
            _ = newcomers.came(Self.connection(descriptor, number))
        }
        #expect(newcomers.count == 50)
        let closed = newcomers.ranShort()
        #expect(closed.count == 25 && closed.map(\.cookie) == Array(99_950..<99_975))
        #expect(newcomers.count == 25)
        for _ in 0..<10 { _ = newcomers.ranShort() }
        #expect(newcomers.count == 0)
    }
}
