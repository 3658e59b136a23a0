// SPDX-License-Identifier: Apache-2.0

import DroverZMQ
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct NameResolverTests {
    private func answer(of resolver: NameResolver, to name: String) async -> NameResolver.Answer {
        await withCheckedContinuation { continuation in
            resolver.resolve(name) { continuation.resume(returning: $0) }
        }
    }

    @Test("the system knows the loopback, IPv4 first, and says why it doesn't know a name")
    func system() async throws {
        #expect(try await self.answer(of: .shared, to: "localhost").get().first == "127.0.0.1")
        #expect(NameResolver.system("::1") == .success(["[::1]"]))
        guard case .failure(let failure) = await self.answer(of: .shared, to: "no.such.host.invalid") else {
            Issue.record("a name that can't be was found")
            return
        }
        #expect(!failure.description.isEmpty)
    }

    @Test("who asks for a name that is being looked up shares the answer; other names don't wait for it")
    func blocked() async throws {
        let gate = ReadySignal<Void>()
        let asked = Mutex<[String]>([])
        let resolver = NameResolver { name in
            asked.withLock { $0.append(name) }
            if name == "slow" { gate.wait() }
            return .success([name])
        }
        let answers = Mutex(0)
        for _ in 0..<100 { resolver.resolve("slow") { _ in answers.withLock { $0 += 1 } } }
        for number in 0..<10 {
            #expect(await self.answer(of: resolver, to: "\(number)") == .success(["\(number)"]))
        }
        #expect(answers.withLock { $0 } == 0)
        gate.set(())
        #expect(await self.answer(of: resolver, to: "last") == .success(["last"]))
        while answers.withLock({ $0 }) < 100 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(asked.withLock { $0.count { $0 == "slow" } } == 1)
        // Nothing is kept.
        #expect(await self.answer(of: resolver, to: "slow") == .success(["slow"]))
        #expect(asked.withLock { $0.count { $0 == "slow" } } == 2)
    }
}
