// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct CallbackMemoryTests {
    @Test("what has ended stays so, whatever is said of pauses")
    func ended() {
        var memory = CallbackMemory<UInt32>()
        memory.flow(7, isPaused: true)
        memory.ended(7)
        memory.flow(7, isPaused: true)
        memory.flow(7, isPaused: false)
        #expect(memory.hasEnded(7))
        #expect(!memory.hasEnded(8))
        let isPaused = memory.takePause(of: 7)
        #expect(!isPaused)
        #expect(memory.count == 1)
    }

    @Test("a pause is told once, and not at all if it is over")
    func pauses() {
        var memory = CallbackMemory<UInt32>()
        memory.flow(1, isPaused: true)
        memory.flow(2, isPaused: true)
        memory.flow(2, isPaused: false)
        memory.flow(3, isPaused: false)
        let told = [1, 1, 2, 3].map { memory.takePause(of: $0) }
        #expect(told == [true, false, false, false])
        #expect(memory.count == 0)
    }

    @Test("beyond its limit the oldest is forgotten, and counted")
    func limit() {
        var memory = CallbackMemory<Int>(limit: 3)
        for round in 0..<100 {
            memory.flow(round, isPaused: true)
            memory.flow(round, isPaused: false)
        }
        #expect(memory.count == 0)
        #expect(memory.forgottenCount == 0)
        for id in 0..<5 { memory.ended(id) }
        memory.ended(4)
        #expect((0..<5).map { memory.hasEnded($0) } == [false, false, true, true, true])
        #expect(memory.count == 3)
        #expect(memory.forgottenCount == 2)
    }
}
