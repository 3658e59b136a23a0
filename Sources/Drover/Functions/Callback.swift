// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverRuntime
public import DroverWire
internal import Synchronization

/// A reference to a client's closure that a worker can call: how a server sends events to its client.
///
/// A client makes it with `callback(_:_:)` of ``Client`` and passes it as an argument. In a handler it can be emitted
/// to, without waiting, or called for its answer. It is a value: it can be echoed back equal and passed on.
public struct Callback<each Argument: Codable & Sendable, Return: Codable & Sendable>: Sendable {
    /// The client that the closure lives in.
    public let client: PeerID
    /// The closure, within its client.
    public let subscription: SubscriptionID
    /// How long the closure can be reached.
    public let lifetime: CallbackLifetime
    /// The way to the client, where there is one: in the worker that was given the reference.
    let link: (any CallbackLink)?

    init(client: PeerID, subscription: SubscriptionID, lifetime: CallbackLifetime, link: (any CallbackLink)?) {
        self.client = client
        self.subscription = subscription
        self.lifetime = lifetime
        self.link = link
    }

    /// Sends the client an event without waiting for an answer; blocks the handler's thread until there is room for it.
    ///
    /// There is none while the client asks for a pause, since its closure is behind, and while much is on its way to the
    /// client: about 8,000 events, or 32 MiB. Nothing is dropped here: only the subscriber's ``OverflowPolicy`` drops events,
    /// and counts them.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Throws: `RemoteError` with `subscriberGone` if the subscription is over or its client gone, also while it waits;
    ///   `CancellationError` if the handler's request is cancelled, or its caller's time over, while it waits;
    ///   `UsageError` outside a worker; an error of encoding.
    @inlinable
    @available(*, noasync, message: "await the emitting instead")
    public func emit(_ argument: repeat each Argument) throws {
        var writer = try self.beginEvent()
        try packArguments(repeat each argument, into: &writer)
        try self.emitBlocking(writer)
    }

    /// Sends the client an event without waiting for an answer; suspends until there is room for it.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Throws: As the blocking form; `CancellationError` also if the task is cancelled while it waits.
    @inlinable
    public func emit(_ argument: repeat each Argument) async throws {
        var writer = try self.beginEvent()
        try packArguments(repeat each argument, into: &writer)
        try await self.emit(self.event(writer))
    }

    /// Sends the client an event if there is room for it now.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Returns: False if it was not taken, and won't be sent: the client asks for a pause, or much is on its way to it.
    /// - Throws: `RemoteError` with `subscriberGone` if the subscription is over or its client gone; `UsageError`
    ///   outside a worker; an error of encoding.
    @inlinable
    public func tryEmit(_ argument: repeat each Argument) throws -> Bool {
        var writer = try self.beginEvent()
        try packArguments(repeat each argument, into: &writer)
        return try self.tryEmit(writer)
    }

    /// Where an event is written to, if there is a way to the client.
    @usableFromInline
    func beginEvent() throws -> PackWriter {
        let limits = try self.requireLink().codecLimits
        return PackWriter(capacity: 96, headerBytes: RequestBytes.headerByteCount, limits: limits)
    }

    @usableFromInline
    func event(_ writer: consuming PackWriter) -> PackedEvent {
        PackedEvent(block: RequestBytes(adopting: writer.finish()))
    }

    @usableFromInline
    @available(*, noasync)
    func emitBlocking(_ writer: consuming PackWriter) throws {
        try self.requireLink().emitBlocking(RequestBytes(adopting: writer.finish()))
    }

    @usableFromInline
    func emit(_ event: PackedEvent) async throws { try await self.requireLink().emit(event.block) }

    @usableFromInline
    func tryEmit(_ writer: consuming PackWriter) throws -> Bool {
        try self.requireLink().tryEmit(RequestBytes(adopting: writer.finish()))
    }

    /// Calls the closure in the client and waits for what it returns.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Returns: The closure's value.
    /// - Throws: `RemoteError` with what the closure threw, or `subscriberGone`; `CancellationError` if the handler is
    ///   cancelled.
    public func callAsFunction(_ argument: repeat each Argument) async throws -> Return {
        let link = try self.requireLink()
        let request = try self.encoded(repeat each argument, limits: link.codecLimits)
        let reply = try link.invoke(request)
        return try await self.decode(reply.result())
    }

    /// Calls the closure in the client and blocks this handler's thread for what it returns.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Returns: The closure's value.
    /// - Throws: As the awaiting form.
    @available(*, noasync, message: "await the callback instead")
    public func blocking(_ argument: repeat each Argument) throws -> Return {
        let link = try self.requireLink()
        let request = try self.encoded(repeat each argument, limits: link.codecLimits)
        let reply = try link.invoke(request)
        return try self.decode(reply.waitForResult())
    }

    /// Gives the subscription up: the client releases the closure.
    public func cancel() { self.link?.end() }

    private func requireLink() throws -> any CallbackLink {
        guard let link else {
            throw UsageError(
                .outsideHandler,
                "callback \(self.subscription) can be called in the handler that was given it; here is no way to its client"
            )
        }
        return link
    }

    private func encoded(_ argument: repeat each Argument, limits: CodecLimits) throws -> RequestBytes {
        var writer = PackWriter(capacity: 96, headerBytes: RequestBytes.headerByteCount, limits: limits)
        try packArguments(repeat each argument, into: &writer)
        return RequestBytes(adopting: writer.finish())
    }

    private func decode(_ bytes: [UInt8]) throws -> Return { try unpackReceived(Return.self, from: bytes) }
}

extension Callback: Hashable {
    /// Whether both mean the same closure of the same client.
    public static func == (lhs: Self, rhs: Self) -> Bool {
        lhs.client == rhs.client && lhs.subscription == rhs.subscription
    }

    /// Hashes the reference.
    ///
    /// - Parameter hasher: Takes it in.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(self.client)
        hasher.combine(self.subscription)
    }
}

extension Callback: WireCodable {
    /// Writes the reference: client, subscription, lifetime.
    ///
    /// - Parameter writer: Where to.
    /// - Throws: An error of encoding.
    public func pack(into writer: inout PackWriter) throws(CodecError) {
        writer.note(
            NotedReference(high: self.client.high, low: self.client.low, number: self.subscription.rawValue)
        )
        try writer.packArrayHeader(3)
        try writer.pack(self.client.bytes)
        try writer.pack(UInt64(self.subscription.rawValue))
        try writer.pack(UInt64(self.lifetime.rawValue))
    }

    /// Reads a reference; in a worker it knows the way to its client.
    ///
    /// - Parameter reader: Where from.
    /// - Returns: The reference.
    /// - Throws: An error of decoding.
    public static func unpack(from reader: inout PackReader) throws(CodecError) -> Self {
        let count = try reader.readArrayHeader()
        guard count == 3, let client = try reader.readPeerID() else {
            throw CodecError(
                .typeMismatch,
                message: "a callback is an array of client (16 bytes), subscription and lifetime"
            )
        }
        // Another number would be another callback's.
        guard let number = UInt32(exactly: try reader.readUInt64()) else {
            throw CodecError(.typeMismatch, message: "a callback's subscription is a number of 32 bits")
        }
        let subscription = SubscriptionID(number)
        let lifetime = CallbackLifetime(rawValue: UInt32(clamping: try reader.readUInt64())) ?? .job
        return Self(
            client: client,
            subscription: subscription,
            lifetime: lifetime,
            link: (reader.context as? any CallbackLinkProvider)?.link(to: subscription, of: client)
        )
    }
}

extension Callback: Codable {
    /// Reads a reference without a way to its client, as from a file.
    ///
    /// - Parameter decoder: Where from.
    /// - Throws: An error of decoding.
    public init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        let bytes = try container.decode([UInt8].self)
        guard let client = PeerID(bytes: bytes) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "a client's identity has 16 bytes")
        }
        self.client = client
        self.subscription = SubscriptionID(try container.decode(UInt32.self))
        self.lifetime = CallbackLifetime(rawValue: try container.decode(UInt32.self)) ?? .job
        self.link = nil
    }

    /// Writes the reference.
    ///
    /// - Parameter encoder: Where to.
    /// - Throws: An error of encoding.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.unkeyedContainer()
        try container.encode(self.client.bytes)
        try container.encode(self.subscription.rawValue)
        try container.encode(self.lifetime.rawValue)
    }
}

/// The way to a client's callback, for a handler that was given it.
protocol CallbackLink: AnyObject, Sendable {
    /// What an event may take.
    var codecLimits: CodecLimits { get }
    /// Sends an event if there is room for it; returns whether it was taken.
    func tryEmit(_ block: RequestBytes) throws -> Bool
    /// Sends an event as soon as there is room for it.
    @available(*, noasync)
    func emitBlocking(_ block: RequestBytes) throws
    /// Sends an event as soon as there is room for it.
    func emit(_ block: RequestBytes) async throws
    /// Calls the callback.
    func invoke(_ block: RequestBytes) throws -> PendingReply
    /// The handler gives the subscription up.
    func end()
}

/// An event that is encoded.
@usableFromInline
struct PackedEvent: Sendable {
    let block: RequestBytes
}
