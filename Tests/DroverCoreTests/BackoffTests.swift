// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct BackoffTests {
    @Test("what fails is tried again after pauses that double up to a limit, and begin anew after a success")
    func pauses() {
        var backoff = Backoff()
        let now = Instant(nanoseconds: 7)
        var pauses = (0..<70).map { _ in backoff.failed(at: now).nanoseconds(since: now) / 1_000_000 }
        #expect(pauses.prefix(8) == [100, 200, 400, 800, 1600, 3200, 5000, 5000])
        #expect(pauses.last == 5000)
        #expect(backoff.failures == 70)
        backoff.succeeded()
        pauses = [backoff.failed(at: now).nanoseconds(since: now) / 1_000_000]
        #expect(pauses == [100])
    }
}
