// SPDX-License-Identifier: Apache-2.0

/// The metadata keys of Drover's log lines.
package enum LogKeys {
    /// What a broker calls a request, whose client's name for it is its ``correlationID``.
    package static let brokersID = "drover.brokers_id"
    package static let bytes = "drover.bytes"
    package static let client = "drover.client"
    package static let correlationID = "drover.correlation_id"
    package static let count = "drover.count"
    package static let endpoint = "drover.endpoint"
    package static let error = "drover.error"
    package static let function = "drover.function"
    package static let kind = "drover.kind"
    package static let reason = "drover.reason"
    package static let subscription = "drover.subscription"
    package static let worker = "drover.worker"
}
