// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct OpenInvocationsTests {
    @Test("an invocation is open until it was answered, in its own session")
    func sessions() {
        var invocations = OpenInvocations()
        for id in [7, 3] as [UInt64] { invocations.received(id) }
        let session = invocations.session
        #expect(invocations.isOpen(3, in: session) && !invocations.isOpen(4, in: session))
        #expect(invocations.ids == [3, 7])
        invocations.answered(3)
        #expect(!invocations.isOpen(3, in: session) && invocations.ids == [7])
        invocations.begin()
        #expect(!invocations.isOpen(7, in: session) && invocations.count == 0)
        // The next peer may give the same number.
        invocations.received(7)
        #expect(!invocations.isOpen(7, in: session) && invocations.isOpen(7, in: invocations.session))
    }
}
