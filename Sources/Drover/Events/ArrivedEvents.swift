// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCore
internal import DroverZMQ

/// Events of one subscription that stand one behind the other in one frame, or one call of it.
///
/// They go from the poller to the callback executor together: a lock, and a count of who holds the frame, for each of
/// them would have the two threads wait for each other.
struct ArrivedEvents: Sendable {
    let frame: MessageBox
    /// Where the arguments stand, in the order of the events.
    private(set) var payloads: ArraySlice<Range<Int>>
    /// More are never made room for at once.
    private static let mostReserved = 1024
    /// The first event's number; nil for a call, which takes the next one without carrying it.
    let sequence: UInt64?
    /// How many result callbacks were queued before; see ``CallbackQueue``.
    var number: UInt64 = 0
    /// Whom to answer, for a call.
    let invocation: Subscription.Invocation?

    init(_ payload: Range<Int>, of frame: MessageBox, sequence: UInt64?, invocation: Subscription.Invocation? = nil) {
        self.frame = frame
        self.payloads = [payload]
        self.sequence = sequence
        self.invocation = invocation
    }

    /// Events whose numbers rise by one.
    init(_ payloads: [Range<Int>], of frame: MessageBox, sequence: UInt64) {
        self.frame = frame
        self.payloads = payloads[...]
        self.sequence = sequence
        self.invocation = nil
    }

    var count: Int { self.payloads.count }

    /// Events that stand one behind the other: the first, and those behind it that a reader finds.
    init(first part: FrameReader.Part, of frame: MessageBox, followedIn reader: inout FrameReader) {
        let subscription = part.header.number
        var next = part.header.id &+ 1
        var payloads = [part.payload]
        if let second = reader.nextEvent(of: subscription, sequence: next) {
            payloads.reserveCapacity(2 + min(reader.mostMessagesLeft(ofPayload: second.count), Self.mostReserved))
            payloads.append(second)
            next &+= 1
            while let payload = reader.nextEvent(of: subscription, sequence: next) {
                payloads.append(payload)
                next &+= 1
            }
        }
        self.init(payloads, of: frame, sequence: part.header.id)
    }

    mutating func dropFirst(_ count: Int = 1) { self.payloads.removeFirst(count) }

    mutating func keepFirst(_ count: Int) { self.payloads = self.payloads.prefix(count) }
}

/// What waits for a subscription's closure.
struct WaitingEvents: Sendable {
    private var runs = Deque<ArrivedEvents>()
    /// How many events and calls wait.
    private(set) var count = 0

    var isEmpty: Bool { self.count == 0 }
    /// Whether a handler waits for one of them.
    var hasInvocation: Bool { self.runs.contains { $0.invocation != nil } }

    mutating func append(_ run: ArrivedEvents) {
        guard run.count > 0 else { return }
        self.count += run.count
        self.runs.append(run)
    }

    /// Takes the first ones, at most so many, if they came before the callback of this number.
    mutating func takeFirst(_ most: Int, upTo number: UInt64) -> ArrivedEvents? {
        guard var first = self.runs.first, first.number <= number else { return nil }
        if first.count <= most {
            self.runs.removeFirst()
        } else {
            first.keepFirst(most)
            self.runs[self.runs.startIndex].dropFirst(most)
        }
        self.count -= first.count
        return first
    }

    /// Drops events, not calls, from the front, so that there are at most so many; the last one stays.
    ///
    /// - Returns: How many were dropped.
    mutating func dropOldest(downTo limit: Int) -> Int {
        var dropped = 0
        var index = self.runs.startIndex
        while self.count > limit, index < self.runs.endIndex {
            // A call waits for its answer; only events may go.
            guard self.runs[index].invocation == nil else {
                index += 1
                continue
            }
            let isLast = index == self.runs.endIndex - 1
            let excess = min(self.count - limit, self.runs[index].count - (isLast ? 1 : 0))
            guard excess > 0 else { break }
            self.count -= excess
            dropped += excess
            if excess == self.runs[index].count {
                self.runs.remove(at: index)
            } else {
                self.runs[index].dropFirst(excess)
            }
        }
        return dropped
    }
}
