// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// Everything a handle is made from, save its result's type.
@usableFromInline
struct CallTicket: Sendable {
    let id: UInt64
    let function: FunctionInfo
    let client: ClientCore
    var request: EncodedRequest
    let options: CallOptions
    let submittedAt: Instant
    /// The time until the call expires, or nil for no limit.
    let limitNanoseconds: UInt64?
}
