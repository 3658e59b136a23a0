// SPDX-License-Identifier: Apache-2.0

internal import DroverWire

extension Instant {
    /// When a request that came at `now` with `time` left is due.
    ///
    /// - Parameters:
    ///   - time: Milliseconds as a header has them, or ``Header/noTimeLimit``.
    ///   - now: When the request came.
    package init(deadlineAfter time: UInt32, at now: Instant) {
        self = time == Header.noTimeLimit ? .distantFuture : now.advanced(byNanoseconds: UInt64(time) * 1_000_000)
    }

    /// What is left of the time until this deadline, as a header has it: whole milliseconds, rounded up, 0 if it is over.
    package func headerTime(at now: Instant) -> UInt32 {
        guard self != .distantFuture else { return Header.noTimeLimit }
        let milliseconds = (self.nanoseconds(since: now) + 999_999) / 1_000_000
        return UInt32(clamping: min(milliseconds, UInt64(Header.noTimeLimit - 1)))
    }

    /// How long a poll may wait for this point in time: whole milliseconds, rounded up, at most an hour; -1 for ever.
    package func pollMilliseconds(at now: Instant) -> Int {
        guard self != .distantFuture else { return -1 }
        return Int(min((self.nanoseconds(since: now) + 999_999) / 1_000_000, 3_600_000))
    }
}
