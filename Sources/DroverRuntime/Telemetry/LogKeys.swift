// SPDX-License-Identifier: Apache-2.0

/// The metadata keys of Drover's log lines.
package enum LogKeys {
    package static let action = "drover.action"
    /// A broker's name for a request, whose client's name for it is its ``correlationID``.
    package static let brokersID = "drover.brokers_id"
    package static let bytes = "drover.bytes"
    package static let client = "drover.client"
    package static let correlationID = "drover.correlation_id"
    package static let count = "drover.count"
    package static let descriptors = "drover.descriptors"
    package static let endpoint = "drover.endpoint"
    package static let error = "drover.error"
    package static let file = "drover.file"
    package static let function = "drover.function"
    package static let key = "drover.key"
    package static let kind = "drover.kind"
    package static let limit = "drover.limit"
    package static let outcome = "drover.outcome"
    package static let peer = "drover.peer"
    package static let principal = "drover.principal"
    package static let reason = "drover.reason"
    package static let silent = "drover.silent"
    package static let subscription = "drover.subscription"
    package static let target = "drover.target"
    package static let turnedAway = "drover.turned_away"
    package static let waiting = "drover.waiting"
    package static let worker = "drover.worker"
}
