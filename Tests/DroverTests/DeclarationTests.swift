// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Drover

private struct Declared: Codable, Sendable {
    var name: String
}

extension Function {
    fileprivate static var first: Function<Declared, String, [Declared]> { .init("first") }
    fileprivate static var second: Function<Declared, String, [Declared]> { .init("second", isIdempotent: true) }
    fileprivate static var other: Function<String, Declared> { .init("other") }
}

@Suite("Declarations")
struct DeclarationTests {
    /// A declaration as a client would take it.
    private func function<each Argument: Codable & Sendable, Result: Codable & Sendable>(
        _ function: Function<repeat each Argument, Result>
    ) -> Function<repeat each Argument, Result> { function }

    @Test("what a signature takes is built once, however often its declarations are mentioned")
    func builtOnce() {
        let codec = self.function(.first).codec
        for _ in 0..<3 { #expect(self.function(.first).codec === codec) }
        #expect(self.function(.second).codec === codec)
        #expect(self.function(.other).codec !== codec as AnyObject)
        #expect(self.function(.second).name == "second")
        #expect(self.function(.second).isIdempotent)
        #expect(!self.function(.first).isIdempotent)
    }
}
