// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverWire

/// What an item's waiter is told by: the place of an item that has a call of its own, or the number of a chunk.
struct BatchMark: Hashable, Sendable {
    private static var chunkBit: UInt32 { 1 << 31 }

    let word: UInt32

    init(place: UInt32) { self.word = place }

    init(chunk: UInt32) { self.word = chunk | Self.chunkBit }

    /// The chunk's number, if it is one.
    var chunk: UInt32? { self.word & Self.chunkBit == 0 ? nil : self.word & ~Self.chunkBit }
}

/// A call that carries items of a batch, and brings back what came of them, still encoded.
///
/// `@unchecked Sendable`: as ``AnyAsyncResult``: the answer is written by the poller alone, before the status that lets others
/// read it.
@usableFromInline
final class ChunkCall: AnyAsyncResult, @unchecked Sendable {
    /// Which of the batch's chunks it is.
    let number: UInt32
    /// The places of its items, in their order.
    let places: [UInt32]
    @safe @exclusivity(unchecked) @usableFromInline private(set) var answer: [UInt8] = []
    @safe @exclusivity(unchecked) private(set) var ranMicroseconds: UInt32 = 0

    private let deaths: UInt8
    /// The workers that died while they had its only item.
    let deadWorkers: [String]

    init(_ ticket: consuming CallTicket, number: UInt32, places: [UInt32], deaths: UInt8, deadWorkers: [String]) {
        self.deaths = deaths
        self.deadWorkers = deadWorkers
        self.number = number
        self.places = places
        super.init(ticket)
    }

    override var itemCount: Int { self.places.count }

    override var attempts: UInt8 { self.deaths }

    var mark: BatchMark { BatchMark(chunk: self.number) }

    override func settle(value payload: UnsafeRawBufferPointer, ran microseconds: UInt32) -> Waiting? {
        self.settle(.value) {
            self.answer = unsafe [UInt8](payload)
            self.ranMicroseconds = microseconds
        }
    }

    /// Why it ended without an answer.
    var ending: any Error {
        switch self.storedFailure {
        case .remote(let error): error
        case .timeout(let error): error
        case .connection(let error): error
        case nil: CancellationError()
        }
    }
}
