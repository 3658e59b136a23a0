// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire
import Testing

@testable import Drover

extension ServingTests {
    /// Clients that introduce themselves again by the connection that they have.
    @Suite(.serialized)
    struct ReintroductionTests {}
}

extension ServingTests.ReintroductionTests {
    @Test("S76 no event is lost when a client introduces itself again and again meanwhile", .timeLimit(.minutes(1)))
    func events() throws {
        let rig = try Rig()
        let raw = try RawClient(rig.endpoint)
        raw.introduce(functions: Job.tick.name)
        let callback = Callback<Int, Nothing>(
            client: raw.identity,
            subscription: SubscriptionID(1),
            lifetime: .job,
            link: nil
        )
        let count = 3000
        raw.request(1, Packed.arguments(callback, count, 0.0001))
        let hello = RawMessage(.hello, id: raw.epoch, payload: Packed.hello(client: raw.identity))
        eventually("it has ended", within: .seconds(30)) {
            raw.send(hello)
            return raw.messages.contains { $0.kind == .reply }
        }
        let numbers = raw.messages.filter { $0.kind == .event }.map { $0.header.id }
        #expect(numbers == (0..<UInt64(count)).map { $0 })
        #expect(raw.messages.count { $0.kind == .welcome } > 10)
        raw.stop()
        rig.stop()
    }
}
