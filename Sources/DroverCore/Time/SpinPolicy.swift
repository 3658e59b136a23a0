// SPDX-License-Identifier: Apache-2.0

/// Says whether it pays to poll for something instead of sleeping until it comes.
///
/// Sleeping and being woken takes tens of microseconds if a processor has to be started for it. It is better to poll
/// for something that comes sooner than that. Polling for something that usually doesn't is a waste, so after each
/// failure twice as many waits are slept through before the next attempt, up to a limit; a success clears the failures.
package struct SpinPolicy: Equatable, Sendable {
    /// How many waits are slept through after a failure, at most.
    package static var longestPause: Int { 127 }

    private var pause = 0
    private var left = 0

    package init() {}

    /// A wait begins.
    ///
    /// - Returns: Whether to poll for a while; if so, ``ended(inTime:)`` follows.
    package mutating func begins() -> Bool {
        if self.left == 0 { return true }
        self.left -= 1
        return false
    }

    /// The awaited thing came in time, or didn't.
    package mutating func ended(inTime: Bool) {
        self.pause = inTime ? 0 : min(self.pause * 2 + 1, Self.longestPause)
        self.left = self.pause
    }
}
