// SPDX-License-Identifier: Apache-2.0

/// The metadata keys of Drover's log lines.
enum LogKeys {
    /// What a broker calls a request, whose client's name for it is its ``correlationID``.
    static let brokersID = "drover.brokers_id"
    static let bytes = "drover.bytes"
    static let client = "drover.client"
    static let correlationID = "drover.correlation_id"
    static let count = "drover.count"
    static let endpoint = "drover.endpoint"
    static let error = "drover.error"
    static let function = "drover.function"
    static let kind = "drover.kind"
    static let reason = "drover.reason"
    static let subscription = "drover.subscription"
    static let worker = "drover.worker"
}
