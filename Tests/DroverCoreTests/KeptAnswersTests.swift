// SPDX-License-Identifier: Apache-2.0

import DroverWire
import Testing

@testable import DroverCore

@Suite("Kept answers")
struct KeptAnswersTests {
    private static let mebibyte = 1 << 20

    private static func finding(_ answers: KeptAnswers<String>, _ id: UInt64) -> String {
        switch answers.find(id) {
        case .nothing: "nothing"
        case .kept(let content): content
        case .isOnItsWay: "on its way"
        }
    }

    @Test("S97 an answer that went whole is kept until a question behind it is answered")
    func whole() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 20_000, inParts: false, most: 64 << 20)
        let isAskedForLittle = answers.asks()
        #expect(!isAskedForLittle)
        _ = answers.keep(2, "two", count: Self.mebibyte, inParts: false, most: 64 << 20)
        let isAsked = answers.asks()
        _ = answers.keep(3, "three", count: Self.mebibyte, inParts: false, most: 64 << 20)
        let isAskedTwice = answers.asks()
        #expect(isAsked && !isAskedTwice)
        let read = answers.answered(isReceiving: false).max()
        #expect(read == 2)
        #expect(answers.count == 1 && answers.bytes == Self.mebibyte)
        #expect(Self.finding(answers, 2) == "nothing" && Self.finding(answers, 3) == "on its way")
        let isAskedAgain = answers.asks()
        let last = answers.answered(isReceiving: false).max()
        #expect(isAskedAgain && last == 3 && answers.bytes == 0)
        let isAskedForNothing = answers.asks(isBeat: true)
        #expect(!isAskedForNothing)
    }

    @Test("a small one is asked about with the next beat")
    func beat() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 20_000, inParts: false, most: 64 << 20)
        let isAsked = answers.asks(isBeat: true)
        let read = answers.answered(isReceiving: false).max()
        #expect(isAsked && read == 1 && answers.count == 0)
    }

    @Test("S97 an answer in parts is kept until its last part is acknowledged, whatever question is answered")
    func parts() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 4 << 20, inParts: true, most: 64 << 20)
        _ = answers.keep(2, "two", count: 2 << 20, inParts: false, most: 64 << 20)
        let isAsked = answers.asks()
        let read = answers.answered(isReceiving: false).max()
        #expect(isAsked && read == 2 && answers.bytes == 4 << 20)
        let isSettled = answers.settled(1)
        let isSettledTwice = answers.settled(1)
        #expect(isSettled && !isSettledTwice && answers.bytes == 0)
    }

    @Test(
        "S97 after another introduction each is sent again once, and what was asked or acknowledged before says nothing"
    )
    func introduced() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 4 << 20, inParts: true, most: 64 << 20)
        _ = answers.keep(2, "two", count: 2 << 20, inParts: false, most: 64 << 20)
        let isAsked = answers.asks()
        answers.introduced()
        let read = answers.answered(isReceiving: false).max()
        let isSettled = answers.settled(1)
        #expect(isAsked && read == nil && !isSettled)
        #expect(Self.finding(answers, 1) == "one" && Self.finding(answers, 2) == "two")
        answers.sentAgain(1, inParts: false)
        #expect(Self.finding(answers, 1) == "on its way" && Self.finding(answers, 2) == "two")
        answers.sentAgain(2, inParts: true)
        let isAskedAgain = answers.asks()
        let first = answers.answered(isReceiving: false).max()
        let isSettledNow = answers.settled(2)
        #expect(isAskedAgain && first == 1 && isSettledNow && answers.count == 0 && answers.bytes == 0)
    }

    @Test("what a client doesn't ask for again is given up after some beats, unless something comes in parts")
    func unclaimed() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 4 << 20, inParts: true, most: 64 << 20)
        answers.introduced()
        for round in 0..<10 {
            let isAsked = answers.asks(isBeat: true)
            let given = answers.answered(isReceiving: true).max()
            #expect(isAsked && given == nil, "round \(round)")
        }
        for round in 1...KeptAnswers<String>.patienceBeats {
            let isAsked = answers.asks(isBeat: true)
            let given = answers.answered(isReceiving: false).max()
            #expect(isAsked && given == (round == KeptAnswers<String>.patienceBeats ? 1 : nil))
        }
        #expect(answers.count == 0 && answers.bytes == 0)
        let isAsked = answers.asks(isBeat: true)
        #expect(!isAsked)
    }

    @Test("of too much the oldest are forgotten, and of too many")
    func bound() {
        var answers = KeptAnswers<String>()
        for id in 1...4 {
            let forgotten = answers.keep(UInt64(id), "", count: 100, inParts: id == 2, most: 300)
            #expect(forgotten == (id == 4 ? [1] : []))
        }
        let two = answers.keep(5, "", count: 150, inParts: false, most: 300)
        #expect(two == [2, 3] && answers.bytes == 250)
        let tooLarge = answers.keep(6, "", count: 301, inParts: false, most: 300)
        #expect(tooLarge == [4, 5, 6] && answers.bytes == 0)
        for id in 0..<KeptAnswers<String>.mostAnswers {
            _ = answers.keep(UInt64(10 + id), "", count: 1, inParts: false, most: 1 << 20)
        }
        let first = answers.keep(9999, "", count: 1, inParts: false, most: 1 << 20)
        #expect(first == [10] && answers.count == KeptAnswers<String>.mostAnswers)
    }

    @Test(
        "a client is kept what it may leave unread, or one that is larger; all together not much more than all may leave"
    )
    func limits() {
        let limit = UnreadLimit(perClient: 6400)
        #expect(limit.mostKept(10, inAll: 0, clients: 1) == 6400)
        #expect(limit.mostKept(9000, inAll: 0, clients: 1) == 9000)
        #expect(limit.mostKept(10, inAll: 25_600, clients: 1) == limit.share(clients: 1))
        #expect(limit.mostKept(30_000, inAll: 0, clients: 1) == limit.share(clients: 1))
    }

    @Test("what is cancelled is kept no longer")
    func dropped() {
        var answers = KeptAnswers<String>()
        _ = answers.keep(1, "one", count: 100, inParts: false, most: 300)
        let isDropped = answers.drop(1)
        let isDroppedTwice = answers.drop(1)
        #expect(isDropped && !isDroppedTwice && answers.bytes == 0)
    }

    @Test(
        "whatever happens in whatever order, the bytes are those of what is kept, and nothing unread is given up in silence"
    )
    func anyOrder() {
        for seed in 0..<200 {
            var random = SplitMix(state: UInt64(seed))
            var answers = KeptAnswers<String>()
            var sizes: [UInt64: Int] = [:]
            var asked: Set<UInt64> = []
            var out: Set<UInt64> = []
            var isOpen = false
            for id in 1...200 {
                let id = UInt64(id)
                switch random.next() % 8 {
                case 0...3:
                    let count = Int(random.next() % 800_000) + 1
                    let inParts = random.next() % 3 == 0
                    for gone in answers.keep(id, "", count: count, inParts: inParts, most: 4 << 20) {
                        sizes[gone] = nil
                    }
                    sizes[id] = count
                    if !inParts { out.insert(id) }
                case 4:
                    if answers.asks(isBeat: random.next() % 2 == 0) {
                        isOpen = true
                        asked = out
                    }
                case 5:
                    let before = sizes.count
                    if !answers.answered(isReceiving: true).isEmpty { #expect(isOpen) }
                    isOpen = false
                    for known in sizes.keys where Self.finding(answers, known) == "nothing" {
                        #expect(asked.contains(known))
                        sizes[known] = nil
                    }
                    #expect(sizes.count <= before)
                    asked = []
                case 6:
                    answers.introduced()
                    (isOpen, asked, out) = (false, [], [])
                default:
                    guard let again = sizes.keys.min() else { continue }
                    if case .kept = answers.find(again) {
                        answers.sentAgain(again, inParts: false)
                        out.insert(again)
                    }
                }
                #expect(answers.bytes == sizes.values.reduce(0, +) && answers.count == sizes.count)
                #expect(answers.bytes <= 4 << 20)
            }
        }
    }
}

private struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var value = self.state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
