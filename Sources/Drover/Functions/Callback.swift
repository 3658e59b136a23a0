// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
public import DroverWire
internal import Synchronization

/// A reference to a closure of a client, that a worker can call: how a server tells its client things.
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

    /// Tells the client something, without waiting for an answer.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Returns: False if this one was dropped, since the client asked for a pause or 8,192 events are on their way: emit
    ///   it again a little later if it matters.
    /// - Throws: ``RemoteError`` with `subscriberGone` if the subscription is over or its client gone; ``UsageError``
    ///   outside a worker; an error of encoding.
    @inlinable
    @discardableResult
    public func emit(_ argument: repeat each Argument) throws -> Bool {
        var writer = try self.beginEvent()
        try packArguments(repeat each argument, into: &writer)
        return try self.finishEvent(writer)
    }

    /// Where an event is written to, if there is a way to the client.
    @usableFromInline
    func beginEvent() throws -> PackWriter {
        let limits = try self.requireLink().codecLimits
        return PackWriter(capacity: 96, headerBytes: RequestBytes.headerByteCount, limits: limits)
    }

    @usableFromInline
    func finishEvent(_ writer: consuming PackWriter) throws -> Bool {
        try self.requireLink().emit(RequestBytes(adopting: writer.finish()), to: self.subscription, of: self.client)
    }

    /// Calls the closure in the client and waits for what it returns.
    ///
    /// - Parameter argument: The closure's arguments.
    /// - Returns: The closure's value.
    /// - Throws: ``RemoteError`` with what the closure threw, or `subscriberGone`; `CancellationError` if the handler is
    ///   cancelled.
    public func callAsFunction(_ argument: repeat each Argument) async throws -> Return {
        let link = try self.requireLink()
        let request = try self.encoded(repeat each argument, limits: link.codecLimits)
        let reply = try link.invoke(request, of: self.subscription, client: self.client)
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
        let reply = try link.invoke(request, of: self.subscription, client: self.client)
        return try self.decode(reply.waitForResult())
    }

    /// Gives the subscription up: the client releases the closure.
    public func cancel() { self.link?.end(self.subscription, of: self.client) }

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
        guard count == 3, let client = PeerID(bytes: try reader.readBytes()) else {
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

/// A worker's way to the clients whose callbacks its handlers were given.
protocol CallbackLink: AnyObject, Sendable {
    /// What the worker's configuration lets a message have.
    var codecLimits: CodecLimits { get }
    /// Sends an event. Returns false if it was dropped since the client asked for a pause.
    func emit(_ block: RequestBytes, to subscription: SubscriptionID, of client: PeerID) throws -> Bool
    /// Calls the callback.
    func invoke(_ block: RequestBytes, of subscription: SubscriptionID, client: PeerID) throws -> PendingReply
    /// The handler gives the subscription up.
    func end(_ subscription: SubscriptionID, of client: PeerID)
}
