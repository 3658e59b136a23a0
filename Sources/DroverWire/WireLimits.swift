// SPDX-License-Identifier: Apache-2.0

/// What a side accepts from its peers; more is refused before it is read.
package struct WireLimits: Equatable, Sendable {
    /// The largest payload, in bytes.
    package var maxPayloadBytes = 64 << 20
    /// The longest function name, in bytes of UTF-8.
    package var maxNameBytes = 255
    /// The longest name or value of a queue, a label or a resource, in bytes of UTF-8.
    package static let maxTermBytes = 255
    /// How many queues, labels or resources a message may name.
    package static let maxTerms = 1024
    /// The longest ordering key, in bytes of UTF-8.
    package static let maxKeyBytes = 4096
    /// The longest metadata of a request, in bytes as they are encoded.
    package static let maxMetadataBytes = 64 << 10
    /// The longest map with which a peer introduces itself, or others; that of an offer, which names functions, is
    /// ``maxOfferBytes``.
    package static let maxMapBytes = 64 << 10
    /// The longest offer of a worker.
    package static let maxOfferBytes = 4 << 20
    /// The longest field name of a map that is looked at: longer ones are skipped as unknown.
    package static let maxFieldNameBytes = 32
    /// The longest question to a broker itself, arguments and all.
    package static let maxQuestionBytes = 64 << 10
    /// How many functions one session may define.
    package var maxFunctions = 4096
    /// Where the number of a REQUEST's caller begins in its header's number, above that of the function.
    @inlinable package static var callerShift: UInt32 { 16 }
    /// How many callers a broker may number in a session.
    @inlinable package static var maxCallers: Int { 65_535 }
    /// How many ZeroMQ frames one message may have (the message's own, and one attached payload).
    package static let maxFrames = 2

    package static let standard = WireLimits()

    package init() {}
}
