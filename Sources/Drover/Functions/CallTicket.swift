// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// Everything a handle is made from, save its result's type.
@usableFromInline
struct CallTicket: ~Copyable, Sendable {
    let id: UInt64
    /// The client's number of the function.
    let function: UInt32
    let client: ClientCore
    var request: EncodedRequest
    let affinity: UInt64
    let isIdempotent: Bool
    var cancelsWithWaiter: Bool
    /// When it was made; to a tick of the kernel's clock if it has no limit.
    let submittedAt: Instant
    /// The time until the call expires, or nil for no limit.
    let limitNanoseconds: UInt64?

    /// There will be no handle: the call is cancelled with the task that waits for it.
    @usableFromInline
    mutating func endsWithItsTask() { self.cancelsWithWaiter = true }
}
