// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Clearance")
struct ClearanceTests {
    @Test("S91 a peer is clear once it has answered a question behind which no request came")
    func questions() {
        var clearance = Clearance()
        #expect(clearance.mustAsk && !clearance.isClear)
        clearance.asked(3)
        #expect(!clearance.mustAsk && !clearance.isClear)
        let foreign = clearance.answered(2)
        #expect(!foreign && !clearance.isClear)
        // It was on its way when the peer was told.
        clearance.heard()
        #expect(clearance.mustAsk)
        let late = clearance.answered(3)
        #expect(!late && !clearance.isClear)
        clearance.asked(4)
        let isAnswer = clearance.answered(4)
        #expect(isAnswer && clearance.isClear && !clearance.mustAsk)
        let again = clearance.answered(4)
        #expect(!again && clearance.isClear)
        // It came back by another connection.
        clearance.heard()
        #expect(!clearance.isClear && clearance.mustAsk)
    }
}
