// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// The last answers of one session, so that a request that is sent again is answered again and never run twice
/// (contract S97).
///
/// A ring of bytes: the oldest answers make room for new ones. Once an answer is forgotten, the cache remembers up to
/// which id that may be so; a re-sent request below that mark can't be told from one that never came.
package struct ResultCache: Sendable {
    private struct Entry: Sendable {
        var id: UInt64
        var offset: Int
        var count: Int
    }

    /// What a re-sent request finds.
    package enum Finding: Equatable, Sendable {
        /// The answer is held.
        case held
        /// The answer, if there was one, is held no more.
        case forgotten
        /// The request was never answered here.
        case never
    }

    private var bytes: [UInt8] = []
    private var entries = Deque<Entry>()
    private var end = 0
    private let maxBytes: Int
    private var forgottenUpTo: UInt64 = 0

    /// How many answers are held.
    package var count: Int { self.entries.count }

    /// Creates a cache of at most `maxBytes`; one of 0 bytes holds nothing.
    package init(maxBytes: Int) {
        self.maxBytes = maxBytes
    }

    /// Keeps the answer to `id`: the message as it goes over the wire.
    package mutating func remember(_ id: UInt64, message: UnsafeRawBufferPointer) {
        let count = message.count
        // An answer that would push out most others isn't worth its place.
        guard count <= self.maxBytes / 16 else {
            self.pass(over: id)
            return
        }
        self.makeRoom(for: count)
        unsafe self.bytes.withUnsafeMutableBytes { ring in
            unsafe UnsafeMutableRawBufferPointer(rebasing: ring[self.end..<self.end + count]).copyMemory(from: message)
        }
        self.entries.append(Entry(id: id, offset: self.end, count: count))
        self.end += count
    }

    /// An answer was sent that isn't kept.
    package mutating func pass(over id: UInt64) {
        self.forgottenUpTo = max(self.forgottenUpTo, id)
    }

    /// Looks for the answer to `id`.
    package func find(_ id: UInt64) -> Finding {
        if self.entries.contains(where: { $0.id == id }) { return .held }
        return id <= self.forgottenUpTo ? .forgotten : .never
    }

    /// Gives the held answer to `id` to `body`.
    package func withMessage(_ id: UInt64, _ body: (UnsafeRawBufferPointer) -> Void) {
        guard let entry = self.entries.last(where: { $0.id == id }) else { return }
        unsafe self.bytes.withUnsafeBytes { ring in
            unsafe body(UnsafeRawBufferPointer(rebasing: ring[entry.offset..<entry.offset + entry.count]))
        }
    }

    private mutating func makeRoom(for count: Int) {
        if self.end + count > self.bytes.count, self.bytes.count < self.maxBytes {
            let size = min(self.maxBytes, max(4096, self.bytes.count * 2, self.bytes.count + count))
            self.bytes.append(contentsOf: repeatElement(0, count: size - self.bytes.count))
        }
        if self.end + count > self.bytes.count {
            // What lies between here and the ring's end goes with the lap.
            while let first = self.entries.first, first.offset >= self.end { self.forget(first) }
            self.end = 0
        }
        while let first = self.entries.first, first.offset >= self.end, first.offset < self.end + count {
            self.forget(first)
        }
    }

    private mutating func forget(_ entry: Entry) {
        self.forgottenUpTo = max(self.forgottenUpTo, entry.id)
        self.entries.removeFirst()
    }
}
