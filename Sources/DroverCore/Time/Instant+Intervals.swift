// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

extension Instant {
    /// The deadline of a request that arrived at `now` with `time` left.
    ///
    /// - Parameters:
    ///   - time: Milliseconds as a header gives them, or ``Header/noTimeLimit``.
    ///   - now: When the request arrived.
    package init(deadlineAfter time: UInt32, at now: Instant) {
        self = time == Header.noTimeLimit ? .distantFuture : now.advanced(byNanoseconds: UInt64(time) * 1_000_000)
    }

    /// The time left until this deadline, as a header gives it: whole milliseconds, rounded up, 0 if it has passed.
    package func headerTime(at now: Instant) -> UInt32 {
        guard self != .distantFuture else { return Header.noTimeLimit }
        let milliseconds = (self.nanoseconds(since: now) + 999_999) / 1_000_000
        return UInt32(clamping: min(milliseconds, UInt64(Header.noTimeLimit - 1)))
    }

    /// How long a poll may wait for this instant: whole milliseconds, rounded up, at most an hour; -1 to wait forever.
    package func pollMilliseconds(at now: Instant) -> Int {
        guard self != .distantFuture else { return -1 }
        return Int(min((self.nanoseconds(since: now) + 999_999) / 1_000_000, 3_600_000))
    }
}
