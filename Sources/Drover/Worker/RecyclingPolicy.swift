// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverZMQ

/// When a worker leaves by itself, so that whatever supervises it starts a fresh one: against leaks, and for machines that
/// come and go.
///
/// The worker drains as if it had been told to stop. What is nil sets no limit.
public struct RecyclingPolicy: Hashable, Sendable {
    /// After so many handlers have ended.
    public var maxJobs: Int?
    /// After so much time, less up to a tenth of it, so that workers that were started together don't leave together.
    public var maxAge: Duration?
    /// When the process has so many bytes resident; looked at once a second.
    public var maxResidentBytes: Int?

    /// Creates a policy.
    ///
    /// - Parameters:
    ///   - maxJobs: After how many handlers the worker leaves.
    ///   - maxAge: After how much time.
    ///   - maxResidentBytes: With how much memory.
    public init(maxJobs: Int? = nil, maxAge: Duration? = nil, maxResidentBytes: Int? = nil) {
        self.maxJobs = maxJobs
        self.maxAge = maxAge
        self.maxResidentBytes = maxResidentBytes
    }

    var limits: Recycling.Limits? {
        guard self != RecyclingPolicy() else { return nil }
        return Recycling.Limits(
            jobs: self.maxJobs,
            ageNanoseconds: self.maxAge?.clampedNanoseconds,
            residentBytes: self.maxResidentBytes
        )
    }
}

/// Why a worker left by itself.
public enum RecyclingReason: Hashable, Sendable, CustomStringConvertible {
    /// So many handlers had ended.
    case jobs(Int)
    /// It had served so long.
    case age(Duration)
    /// So many bytes were resident.
    case residentBytes(Int)

    init(_ reason: Recycling.Reason) {
        switch reason {
        case .jobs(let count): self = .jobs(count)
        case .age(let nanoseconds): self = .age(.nanoseconds(Int64(clamping: nanoseconds)))
        case .residentBytes(let count): self = .residentBytes(count)
        }
    }

    /// The reason in words.
    public var description: String {
        switch self {
        case .jobs(let count): "\(count) handlers have ended"
        case .age(let age): "it has served for \(age)"
        case .residentBytes(let count): "\(count >> 20) MiB are resident"
        }
    }
}
