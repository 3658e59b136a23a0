// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Callers that workers are told of")
struct ToldCallersTests {
    @Test(
        "a worker is told of each caller once, and again when its number stands for another or the session is another"
    )
    func tells() {
        var told = ToldCallers()
        let first = [told.mustTell(3, mark: 7), told.mustTell(3, mark: 7), told.mustTell(1, mark: 7)]
        #expect(first == [true, false, true])
        let other = [told.mustTell(3, mark: 8), told.mustTell(3, mark: 8), told.mustTell(1, mark: 7)]
        #expect(other == [true, false, false])
        told.forget()
        let again = [told.mustTell(3, mark: 8), told.mustTell(1, mark: 7)]
        #expect(again == [true, true])
    }
}
