// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime
internal import DroverWire
internal import Synchronization

/// A function as one client knows it: its name and its number on the wire.
@usableFromInline
final class FunctionInfo: Sendable {
    let name: String
    let number: UInt32
    /// Why it can't be called: no worker would know it by this name and number.
    let refusal: UsageError?
    /// What an item of a batch took last, as the bits of a number of nanoseconds; 0 if that isn't known.
    private let itemTime = Atomic<UInt64>(0)

    init(name: String, number: UInt32) {
        self.name = name
        self.number = number
        let (longest, most) = (WireLimits.standard.maxNameBytes, WireLimits.standard.maxFunctions)
        if !(1...longest).contains(name.utf8.count) {
            self.refusal = UsageError.badName(name)
        } else if number >= most, number != .max {
            self.refusal = UsageError(
                .notCallable,
                "\"\(name)\" can't be called: this client knows \(most) function names already, the limit; use fewer, or "
                    + "several clients"
            )
        } else {
            self.refusal = nil
        }
    }

    /// What an item of a batch took last, so that the next batch need not find out: nil if there was none.
    var knownItemNanoseconds: Double? {
        get {
            let bits = self.itemTime.load(ordering: .relaxed)
            return bits == 0 ? nil : Double(bitPattern: bits)
        }
        set { self.itemTime.store((newValue ?? 0).bitPattern, ordering: .relaxed) }
    }
}
