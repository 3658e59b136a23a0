// SPDX-License-Identifier: Apache-2.0

import DroverWire
import DroverZMQ
import Foundation
import Testing

@testable import Drover

extension ServingTests {
    /// What is kept when there is nothing to do.
    @Suite(.serialized)
    struct MemoryTests {}
}

extension ServingTests.MemoryTests {
    @Test("a worker whose clients left with large results unread gives their memory back", .timeLimit(.minutes(2)))
    func unreadResults() throws {
        let rig = try Rig()
        let growing = Function<Int, [UInt8]>("growing")
        rig.worker.register(growing) { (count: Int) in [UInt8](repeating: 7, count: count) }
        let running = try rig.worker.start(.bind("tcp://127.0.0.1:*"))
        let before = Footprint.now.residentBytes
        for number in 0..<4 {
            let raw = try RawClient(running.endpoint)
            raw.introduce(functions: "growing")
            raw.request(UInt64(number + 1), Packed.arguments(60_000_000))
            raw.request(UInt64(number + 11), Packed.arguments(60_000_000))
            eventually("the handlers have run", within: .seconds(60)) {
                running.status.completed == 2 * (number + 1)
            }
            raw.stop()
        }
        eventually("the memory is given back", within: .seconds(30)) {
            Footprint.now.residentBytes - before < (isSanitized ? 400 : 80) << 20
        }
        running.stopBlocking(grace: .zero)
        rig.stop()
    }

    @Test("a handle keeps nothing of its request once the call has ended", .timeLimit(.minutes(1)))
    func heldResults() throws {
        let rig = try Rig()
        let client = try rig.client()
        let small = try client.function(Job.echo).async(1)
        #expect(try small.get() == 1)
        let isFree = unsafe small.request.base == nil
        #expect(isFree)
        client.closeBlocking()
        rig.stop()
    }

    @Test("a result of 40 characters that is held takes less than 250 bytes", .timeLimit(.minutes(1)))
    func heldBytes() throws {
        let rig = try Rig()
        let client = try rig.client()
        let text = Function<Int, String>("text of 40 characters")
        rig.worker.register(text) { (number: Int) in
            let digits = String(number)
            return String(repeating: "x", count: 40 - digits.count) + digits
        }
        let function = client.function(text)
        // Whatever is made once is made now.
        for result in try (0..<1000).map({ try function.async($0) }) { #expect(try result.get().utf8.count == 40) }
        var held: [AsyncResult<String>] = []
        let count = 20_000
        held.reserveCapacity(count)
        let before = HeapReserve.bytesInUse
        for number in 0..<count { held.append(try function.async(number)) }
        for result in held { #expect(try result.get().utf8.count == 40) }
        // The tables that so many open calls needed go when there is nothing to do.
        eventually("what is left are the results", within: .seconds(30)) {
            isSanitized || (HeapReserve.bytesInUse - before) / count < 250
        }
        #expect(held.count == count)
        client.closeBlocking()
        rig.stop()
    }

    @Test("those who wait for a place leave in any order at the same cost, and the others keep theirs")
    func placeQueue() {
        var queue = PlaceQueue()
        let count: UInt64 = 200_000
        let signal = ReadySignal<PlaceAnswer>()
        for key in 0..<count { queue.append(.thread(signal), as: key) }
        // From the end: a search from the front would take minutes.
        for key in (0..<count).reversed() where key % 1000 != 0 {
            let isThere = queue.remove(key) != nil
            #expect(isThere)
        }
        #expect(queue.count == 200)
        let isGone = queue.remove(1) == nil
        #expect(isGone)
        var left = 0
        while queue.takeFirst() != nil { left += 1 }
        #expect(left == 200 && queue.isEmpty)
    }
}
