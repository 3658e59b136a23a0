// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

/// Why a handler should stop.
///
/// A minor release may add reasons: keep a `default` branch.
public struct CancellationReason: Hashable, Sendable, CustomStringConvertible {
    let number: UInt8
    /// The reason in words.
    public let description: String

    /// The caller cancelled its call.
    public static let requested = CancellationReason(number: 1, description: "the caller cancelled its call")
    /// The caller's deadline passed.
    public static let deadline = CancellationReason(number: 2, description: "the caller's deadline passed")
    /// The caller is gone, or the broker that the call came by.
    public static let clientGone = CancellationReason(number: 3, description: "the caller is gone")
    /// The worker leaves, and its grace is over.
    public static let workerLeaves = CancellationReason(number: 4, description: "the worker leaves")
    /// The handler has run until its soft limit; see ``TimeLimits``.
    public static let softTimeLimit = CancellationReason(number: 5, description: "the soft time limit passed")
    /// The handler has run until its hard limit: nobody gets its result.
    public static let hardTimeLimit = CancellationReason(number: 6, description: "the hard time limit passed")

    private static let all = [requested, deadline, clientGone, workerLeaves, softTimeLimit, hardTimeLimit]

    private init(number: UInt8, description: String) {
        self.number = number
        self.description = description
    }

    /// - Returns: nil for 0, which stands for no reason.
    init?(number: UInt8) {
        guard let reason = Self.all.first(where: { $0.number == number }) else { return nil }
        self = reason
    }

    /// What a client's wish says; of what isn't known, that it is one.
    init(_ number: UInt32) { self = CancelReason(rawValue: number) == .expired ? .deadline : .requested }
}
