// SPDX-License-Identifier: Apache-2.0

import DroverCodec
import DroverWire
import Testing

@Suite("WorkerStatus")
struct StatusPayloadTests {
    private static var full: WorkerStatus {
        var status = WorkerStatus()
        status.worker = "w1"
        status.running = 1
        status.queued = 2
        status.concurrency = 3
        status.clients = 4
        status.received = 5
        status.completed = 6
        status.failed = 7
        status.dropped = 8
        status.stuck = 9
        status.heldUp = 10
        status.partsRefused = 11
        status.oversizedMessages = 12
        status.abandonedMessages = 13
        status.forgottenNews = 14
        status.forgottenAnswers = 15
        status.isDraining = true
        return status
    }

    @Test("S92 a status comes back as it was")
    func roundTrip() throws {
        #expect(try readStatus(payload(Self.full.pack)) == Self.full)
    }

    @Test("S73 every truncation is an error, and no flipped bit a crash")
    func broken() throws {
        let bytes = try payload(Self.full.pack)
        for cut in bytes.truncations { #expect(throws: CodecError.self) { try readStatus(cut) } }
        for flipped in bytes.withOneBitFlipped { _ = try? readStatus(flipped) }
    }

    @Test("an empty map, as a client may answer, is an idle worker's status")
    func empty() throws {
        #expect(try readStatus([0x80]) == WorkerStatus())
    }
}
