// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Simulator
import Testing

@Suite struct BatchWindowTests {
    /// A window that expectations can look at: they copy what they show, and a window can't be copied.
    private final class Window {
        private var window: BatchWindow

        init(_ size: Int, isOrdered: Bool, taking count: Int) {
            self.window = BatchWindow(size: size, isOrdered: isOrdered)
            for _ in 0..<count { _ = self.window.take() }
        }

        var size: Int { self.window.size }
        var heldCount: Int { self.window.heldCount }
        var hasRoom: Bool { self.window.hasRoom }
        var hasDeliverable: Bool { self.window.hasDeliverable }
        var isFinished: Bool { self.window.isFinished }
        var wantsItems: Bool { self.window.wantsItems }
        var awaitedPlace: UInt32? { self.window.awaitedPlace }
        func index(in place: UInt32) -> Int { self.window.index(in: place) }
        func take() -> UInt32 { self.window.take() }
        func ended(in place: UInt32) { self.window.ended(in: place) }
        func deliver() -> UInt32? { self.window.deliver() }
        func closed(after count: Int? = nil) { self.window.closed(after: count) }
    }

    private static func window(_ size: Int, isOrdered: Bool = false, taking count: Int = 0) -> Window {
        Window(size, isOrdered: isOrdered, taking: count)
    }

    @Test("a full window takes nothing until something was delivered")
    func full() {
        let window = Self.window(2, taking: 2)
        #expect(!window.hasRoom)
        window.ended(in: 1)
        #expect(!window.hasRoom, "what has ended keeps its place until it is delivered")
        #expect(window.deliver() == 1)
        #expect(window.hasRoom)
        #expect(window.take() == 1)
        #expect(window.index(in: 1) == 2)
    }

    @Test("without order items are delivered as they end")
    func asCompleted() {
        let window = Self.window(3, taking: 3)
        #expect(window.awaitedPlace == nil)
        for place: UInt32 in [2, 0, 1] { window.ended(in: place) }
        #expect((0..<3).map { _ in window.deliver() } == [2, 0, 1])
        #expect(window.deliver() == nil)
    }

    @Test("in order an item waits for those before it")
    func asGiven() {
        let window = Self.window(3, isOrdered: true, taking: 3)
        #expect(window.awaitedPlace == 0)
        window.ended(in: 1)
        window.ended(in: 2)
        #expect(!window.hasDeliverable)
        #expect(window.deliver() == nil)
        window.ended(in: 0)
        #expect((0..<4).map { _ in window.deliver() } == [0, 1, 2, nil])
        #expect(window.awaitedPlace == nil)
        #expect((0..<3).map { _ in window.take() } == [0, 1, 2])
        #expect(window.index(in: 1) == 4)
    }

    @Test("items are wanted in lots, or when nothing else is to do")
    func lots() {
        let window = Self.window(16, taking: 16)
        for place: UInt32 in 0..<3 { window.ended(in: place) }
        _ = window.deliver()
        #expect(!window.wantsItems, "one place of sixteen, and more to deliver")
        _ = window.deliver()
        #expect(window.wantsItems, "an eighth is free")
        _ = window.take()
        #expect(!window.wantsItems)
        _ = window.deliver()
        _ = window.take()
        #expect(window.wantsItems, "nothing else is to do")
        window.closed()
        #expect(!window.wantsItems)
    }

    @Test("a closed window is finished with its last delivery")
    func closing() {
        let window = Self.window(4, taking: 2)
        window.closed()
        #expect(!window.hasRoom)
        #expect(!window.isFinished)
        for place: UInt32 in 0..<2 {
            window.ended(in: place)
            _ = window.deliver()
        }
        #expect(window.isFinished)
    }

    @Test("places that were taken in advance are given back when the input ends")
    func givenBack() {
        let window = Self.window(4, isOrdered: true, taking: 4)
        window.closed(after: 1)
        #expect(window.heldCount == 1)
        window.ended(in: 0)
        #expect(window.deliver() == 0)
        #expect(window.isFinished)
    }

    @Test("a window has at least one place")
    func least() {
        #expect(Self.window(0).size == 1)
        #expect(Self.window(-5).hasRoom)
    }

    @Test("in any history each item is delivered once, in order if asked for, and the size is never exceeded")
    func histories() throws {
        try withSeeds { random in
            let isOrdered = random.oneIn(2)
            var window = BatchWindow(size: 1 + random.below(6), isOrdered: isOrdered)
            let total = random.below(40)
            var underWay: [UInt32] = []
            var delivered: [Int] = []
            var taken = 0
            for _ in 0..<10_000 where !window.isFinished {
                switch random.below(3) {
                case 0 where window.hasRoom:
                    if taken == total {
                        window.closed()
                    } else {
                        let place = window.take()
                        try check(!underWay.contains(place), "a place is given twice")
                        try check(window.index(in: place) == taken, "items are numbered as they come")
                        underWay.append(place)
                        taken += 1
                    }
                case 1 where !underWay.isEmpty:
                    window.ended(in: underWay.remove(at: random.below(underWay.count)))
                default:
                    if let place = window.deliver() { delivered.append(window.index(in: place)) }
                }
                try check(window.heldCount <= window.size, "more items are held than the size allows")
                try check(taken - delivered.count == window.heldCount, "the count is wrong")
            }
            try check(window.isFinished, "the window never finishes")
            let expected = Array(0..<total)
            try check(isOrdered ? delivered == expected : delivered.sorted() == expected, "delivered \(delivered)")
        }
    }
}
