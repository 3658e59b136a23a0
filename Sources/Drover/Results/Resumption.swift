// SPDX-License-Identifier: Apache-2.0

/// A suspended task, resumed once by the code that takes it out of the place where it waits.
///
/// `@safe`: a resumption is in one place, behind a lock, and is resumed only by who removed it from there. So it is resumed
/// once, which is all that an unsafe continuation asks for; a checked one would cost an allocation for each wait.
@safe
struct Resumption<Value: Sendable>: Sendable {
    private let continuation: UnsafeContinuation<Value, Never>

    fileprivate init(_ continuation: UnsafeContinuation<Value, Never>) { unsafe self.continuation = continuation }

    func resume(returning value: Value) { unsafe self.continuation.resume(returning: value) }
}

extension Resumption where Value == Void {
    func resume() { self.resume(returning: ()) }
}

/// Suspends the task until the resumption that `body` is given is resumed.
func withResumption<Value: Sendable>(_ body: (Resumption<Value>) -> Void) async -> Value {
    await unsafe withUnsafeContinuation { continuation in unsafe body(Resumption(unsafe continuation)) }
}
