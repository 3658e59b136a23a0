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
        var isRemoval: Bool
    }

    /// What a re-sent request finds.
    package enum Finding: Equatable, Sendable {
        /// The answer is held.
        case held
        /// It was taken out before it ran; the answer that said so is held.
        case removed
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
    /// How many answers were kept before the first that is held.
    private var firstNumber = 0
    /// The number of each id's last answer, while requests that were sent again come: answers are kept for each request,
    /// and looked for after a connection was lost only.
    private var numbers: [UInt64: Int]?
    /// How many answers were kept since one was looked for.
    private var unusedCount = 0

    /// How many answers are held.
    package var count: Int { self.entries.count }

    /// An answer that would push out most others isn't worth its place; see ``KeptAnswers``.
    package static func largestAnswer(maxBytes: Int) -> Int { maxBytes / 16 }

    /// Creates a cache of at most `maxBytes`; one of 0 bytes holds nothing.
    package init(maxBytes: Int) {
        self.maxBytes = maxBytes
    }

    /// Keeps the answer to `id`.
    ///
    /// - Parameters:
    ///   - id: The request.
    ///   - message: The answer as it goes over the wire.
    ///   - isRemoval: It says that the request was taken out before it ran.
    package mutating func remember(_ id: UInt64, message: UnsafeRawBufferPointer, isRemoval: Bool = false) {
        let count = message.count
        guard count <= Self.largestAnswer(maxBytes: self.maxBytes) else {
            self.pass(over: id)
            return
        }
        self.makeRoom(for: count)
        unsafe self.bytes.withUnsafeMutableBytes { ring in
            unsafe UnsafeMutableRawBufferPointer(rebasing: ring[self.end..<self.end + count]).copyMemory(from: message)
        }
        self.entries.append(Entry(id: id, offset: self.end, count: count, isRemoval: isRemoval))
        self.end += count
        guard self.numbers != nil else { return }
        self.unusedCount += 1
        if self.unusedCount > self.entries.count {
            self.numbers = nil
        } else {
            self.numbers?[id] = self.firstNumber + self.entries.count - 1
        }
    }

    /// An answer was sent that isn't kept.
    package mutating func pass(over id: UInt64) {
        self.forgottenUpTo = max(self.forgottenUpTo, id)
    }

    /// Looks for the answer to `id`.
    package mutating func find(_ id: UInt64) -> Finding {
        if let number = self.number(of: id) {
            return self.entries[number - self.firstNumber].isRemoval ? .removed : .held
        }
        return id <= self.forgottenUpTo ? .forgotten : .never
    }

    private mutating func number(of id: UInt64) -> Int? {
        self.unusedCount = 0
        if let numbers = self.numbers { return numbers[id] }
        var numbers: [UInt64: Int] = [:]
        numbers.reserveCapacity(self.entries.count)
        for (place, entry) in self.entries.enumerated() { numbers[entry.id] = self.firstNumber + place }
        self.numbers = numbers
        return numbers[id]
    }

    /// Gives the answer to `id`, which ``find(_:)`` has just found, to `body`.
    package func withMessage(_ id: UInt64, _ body: (UnsafeRawBufferPointer) -> Void) {
        guard let number = self.numbers?[id] else { return }
        let entry = self.entries[number - self.firstNumber]
        unsafe self.bytes.withUnsafeBytes { ring in
            unsafe body(UnsafeRawBufferPointer(rebasing: ring[entry.offset..<entry.offset + entry.count]))
        }
    }

    private mutating func makeRoom(for count: Int) {
        if self.end + count > self.bytes.count, self.bytes.count < self.maxBytes {
            let size = min(self.maxBytes, max(4096, self.bytes.count * 2, self.bytes.count + count))
            var larger = [UInt8](repeating: 0, count: size)
            unsafe larger.withUnsafeMutableBytes { new in
                unsafe self.bytes.withUnsafeBytes { unsafe new.copyMemory(from: $0) }
            }
            self.bytes = larger
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
        if self.numbers?[entry.id] == self.firstNumber { self.numbers?[entry.id] = nil }
        self.firstNumber += 1
    }
}
