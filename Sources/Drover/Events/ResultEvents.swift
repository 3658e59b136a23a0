// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import Synchronization

/// Something that a running handler told its caller with ``JobContext/report(_:)-75z5g``.
public struct ResultEvent: Sendable {
    /// The event's place, from 0.
    public let sequence: Int
    let bytes: [UInt8]

    /// The event's value.
    ///
    /// - Parameter type: The type that the handler reported.
    /// - Returns: The value.
    /// - Throws: An error of decoding if the handler reported another type.
    public func value<Value: Decodable>(as type: Value.Type) throws -> Value {
        try unpackReceived(Value.self, from: self.bytes)
    }
}

/// The events of one call, in order; it ends when the call has ended.
///
/// For one reader.
public struct ResultEvents: AsyncSequence, Sendable {
    /// What a handler reported.
    public typealias Element = ResultEvent

    let channel: ResultChannel

    /// How many events were dropped so far, since more than 1024 waited for the reader.
    public var dropped: Int { self.channel.dropped.current }

    /// Starts reading.
    ///
    /// - Returns: The iterator of the one reader.
    public func makeAsyncIterator() -> AsyncStream<ResultEvent>.AsyncIterator {
        self.channel.stream.makeAsyncIterator()
    }
}

/// Keeps the events of a call until somebody reads them: at most so many, the oldest go first.
final class ResultChannel: Sendable {
    static let limit = 1024

    let stream: AsyncStream<ResultEvent>
    let dropped = Atomic<Int>(0)
    private let continuation: AsyncStream<ResultEvent>.Continuation

    init() {
        (self.stream, self.continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(Self.limit))
    }

    func yield(_ event: ResultEvent) {
        if case .dropped = self.continuation.yield(event) { self.dropped.count() }
    }

    func finish() { self.continuation.finish() }
}

extension AnyAsyncResult {
    /// What the handler reports while it runs, in order; ends when the call has ended (contract S84).
    ///
    /// Up to 1024 events wait for the reader; of more, the oldest are dropped, which ``ResultEvents/dropped`` counts and the
    /// sequence numbers show.
    public final var events: ResultEvents { ResultEvents(channel: self.channel()) }
}
