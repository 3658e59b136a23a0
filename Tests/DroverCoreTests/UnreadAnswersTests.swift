// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverCore

@Suite("Unread answers")
struct UnreadAnswersTests {
    @Test("one question is open at a time, and what came before it is read with its answer")
    func questions() {
        var unread = UnreadAnswers()
        let isAsked = unread.sent(24, limit: 100)
        #expect(!isAsked)
        let isAskedNow = unread.sent(1, limit: 100)
        #expect(isAskedNow)
        let isAskedTwice = unread.sent(50, limit: 100)
        #expect(!isAskedTwice)
        #expect(unread.bytes == 75)
        let isAskedAgain = unread.answered(limit: 100)
        #expect(isAskedAgain)
        #expect(unread.bytes == 50)
        let isDone = unread.answered(limit: 100)
        #expect(!isDone && unread.bytes == 0)
    }

    @Test("one whose requests wait is asked about all that may keep them waiting, however little that is")
    func asksWhileHeldUp() {
        var unread = UnreadAnswers()
        let isAsked = unread.sent(1000, limit: 64_000)
        let isAskedNow = unread.heldUp(limit: 64_000)
        #expect(!isAsked && isAskedNow)
        let isAskedTwice = unread.sent(900, limit: 64_000, isHeldUp: true)
        let isAskedAgain = unread.answered(limit: 64_000, isHeldUp: true)
        #expect(!isAskedTwice && isAskedAgain && unread.bytes == 900)
        // The question itself.
        _ = unread.sent(24, limit: 64_000, isHeldUp: true)
        let isAskedForEver = unread.answered(limit: 64_000, isHeldUp: true)
        #expect(!isAskedForEver)
        let limit = UnreadLimit(perClient: 64_000)
        #expect(limit.share(clients: 1 << 20) >= 64_000 / 1024)
    }

    @Test("who has left much unread waits until half is read; when all have, those wait who left more than their share")
    func limits() {
        let limit = UnreadLimit(perClient: 6400)
        #expect(!limit.mustWait(unread: 6399, total: 6399, isHeldUp: false))
        #expect(limit.mustWait(unread: 6400, total: 6400, isHeldUp: false))
        #expect(limit.mustWait(unread: 3200, total: 3200, isHeldUp: true))
        #expect(!limit.mustWait(unread: 3199, total: 3199, isHeldUp: true))
        #expect(limit.mustWait(unread: 100, total: 25600, isHeldUp: false))
        #expect(!limit.mustWait(unread: 99, total: 25600, isHeldUp: false))
        #expect(!limit.mustWait(unread: 100, total: 12799, isHeldUp: true))
    }

    @Test("limits as large as numbers are no more than that")
    func hugeLimits() {
        let limit = UnreadLimit(perClient: .max)
        #expect(!limit.mustWait(unread: 1 << 40, total: 1 << 50, isHeldUp: false))
        var cache = ResultCache(maxBytes: .max)
        let answer: [UInt8] = [1, 2, 3]
        answer.withUnsafeBytes { cache.remember(1, message: $0, mayGrow: .max) }
        #expect(cache.count == 1)
        let recycling = Recycling(limits: .init(ageNanoseconds: .max), at: Instant(nanoseconds: 5), spread: 0)
        #expect(recycling.nextLook == .distantFuture)
    }
}
