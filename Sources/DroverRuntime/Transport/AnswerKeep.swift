// SPDX-License-Identifier: Apache-2.0

package import DroverCore
package import DroverWire
package import DroverZMQ

/// A large answer, with what it takes to send it again; its bytes are not copied.
package struct LargeAnswer {
    package let header: Header
    package let source: PartSource
    /// Events may be for its caller: it must not overtake them.
    package let isBehindEvents: Bool

    package init(_ header: Header, _ source: PartSource, isBehindEvents: Bool) {
        self.header = header
        self.source = source
        self.isBehindEvents = isBehindEvents
    }

    /// Its bytes, with its header.
    package var count: Int { Header.byteCount + Int(self.header.payloadLength) }

    /// Its payload as a frame of its own, behind the header.
    package func payload() -> Message { self.source.message(0..<Int(self.header.payloadLength)) }
}

/// What is kept of large answers over all of a loop's clients.
package final class KeptTally {
    @safe @exclusivity(unchecked) package fileprivate(set) var bytes = 0
    package let limit: UnreadLimit

    package init(limit: UnreadLimit) { self.limit = limit }
}

/// The large answers that one client has not read.
///
/// Belongs, like the link, to the loop's thread.
package final class AnswerKeep {
    @safe @exclusivity(unchecked) private var answers = KeptAnswers<LargeAnswer>()
    private let tally: KeptTally
    /// The PING that asks whether they have been read; 0 if none is open.
    @safe @exclusivity(unchecked) package var question: UInt64 = 0

    package init(tally: KeptTally) { self.tally = tally }

    deinit { self.tally.bytes -= self.answers.bytes }

    private func change<Result>(_ body: (inout KeptAnswers<LargeAnswer>) -> Result) -> Result {
        let before = self.answers.bytes
        defer { self.tally.bytes += self.answers.bytes - before }
        return body(&self.answers)
    }

    /// Answers larger than this, with their headers, are kept here, if `maxCachedBytes` of smaller ones are kept.
    package static func leastBytes(maxCachedBytes: Int) -> Int {
        maxCachedBytes > 0 ? ResultCache.largestAnswer(maxBytes: maxCachedBytes) : Int.max
    }

    /// Keeps an answer that is being sent, in parts or whole.
    ///
    /// - Returns: The requests whose answers are forgotten for it.
    package func keep(_ answer: LargeAnswer, inParts: Bool, clients: Int) -> [UInt64] {
        let count = answer.count
        let most = self.tally.limit.mostKept(count, inAll: self.tally.bytes, clients: clients)
        return self.change { $0.keep(answer.header.id, answer, count: count, inParts: inParts, most: most) }
    }

    /// Whether one goes in parts of which the client doesn't have the last.
    package var hasParts: Bool { self.answers.hasParts }

    /// A request was sent again.
    package func find(_ id: UInt64) -> KeptAnswers<LargeAnswer>.Finding { self.answers.find(id) }

    /// An answer was sent again.
    package func sentAgain(_ id: UInt64, inParts: Bool) { self.change { $0.sentAgain(id, inParts: inParts) } }

    /// The client has all of an answer that went in parts, or wants it no more.
    ///
    /// - Returns: Whether it was kept.
    package func settled(_ id: UInt64) -> Bool { self.change { $0.settled(id) } }

    /// The client wants an answer no more.
    ///
    /// - Returns: Whether it was kept.
    package func drop(_ id: UInt64) -> Bool { self.answers.count > 0 && self.change { $0.drop(id) } }

    /// Whether to ask the client now; then ``question`` is to be set.
    package func asks(isBeat: Bool = false) -> Bool { self.change { $0.asks(isBeat: isBeat) } }

    /// The client has read what it was asked about.
    ///
    /// - Returns: The requests whose answers are kept no longer.
    package func answered(isReceiving: Bool) -> [UInt64] {
        self.question = 0
        return self.change { $0.answered(isReceiving: isReceiving) }
    }

    /// The client introduced itself again.
    package func introduced() {
        self.question = 0
        self.change { $0.introduced() }
    }
}
