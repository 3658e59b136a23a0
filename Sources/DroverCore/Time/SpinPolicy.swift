// SPDX-License-Identifier: Apache-2.0

/// Says whether it pays to look out for something instead of sleeping until it comes.
///
/// To sleep and be woken takes tens of microseconds where a processor has to be started for it. What comes sooner than that is
/// better watched for. What usually doesn't is watched for in vain, so after each failure twice as many waits are slept
/// through before the next attempt, up to a limit; a success forgets the failures.
package struct SpinPolicy: Equatable, Sendable {
    /// At most so many waits are slept through after a failure.
    package static var longestPause: Int { 127 }

    private var pause = 0
    private var left = 0

    package init() {}

    /// A wait begins.
    ///
    /// - Returns: Whether to look out for a while; if so, ``ended(inTime:)`` follows.
    package mutating func begins() -> Bool {
        if self.left == 0 { return true }
        self.left -= 1
        return false
    }

    /// What was looked out for came in time, or didn't.
    package mutating func ended(inTime: Bool) {
        self.pause = inTime ? 0 : min(self.pause * 2 + 1, Self.longestPause)
        self.left = self.pause
    }
}
