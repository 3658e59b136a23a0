// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// An atomic word that threads can sleep on.
///
/// It is on the heap because the kernel needs an address that stays the same. Writes release and reads acquire, except
/// where the name says otherwise.
///
/// `@unchecked Sendable`: the pointer never changes, what it points to is atomic, and its only owner frees it.
@safe struct FutexWord: ~Copyable, @unchecked Sendable {
    private let pointer: UnsafeMutablePointer<Atomic<UInt32>>

    init(_ value: UInt32) {
        unsafe self.pointer = .allocate(capacity: 1)
        unsafe self.pointer.initialize(to: Atomic(value))
    }

    deinit {
        unsafe self.pointer.deinitialize(count: 1)
        unsafe self.pointer.deallocate()
    }

    /// The value, acquiring.
    var value: UInt32 { unsafe self.pointer.pointee.load(ordering: .acquiring) }

    /// Stores `value`, releasing.
    func store(_ value: UInt32) {
        unsafe self.pointer.pointee.store(value, ordering: .releasing)
    }

    /// Replaces the value, releasing and acquiring.
    func exchange(_ value: UInt32) -> UInt32 {
        unsafe self.pointer.pointee.exchange(value, ordering: .acquiringAndReleasing)
    }

    /// Replaces `expected` with `desired` without ordering anything else; returns whether `expected` was there.
    func compareExchangeRelaxed(_ expected: UInt32, _ desired: UInt32) -> Bool {
        unsafe self.pointer.pointee.compareExchange(expected: expected, desired: desired, ordering: .relaxed).exchanged
    }

    /// Replaces `expected` with `desired`, acquiring; returns whether `expected` was there.
    func compareExchange(_ expected: UInt32, _ desired: UInt32) -> Bool {
        unsafe self.pointer.pointee
            .compareExchange(
                expected: expected,
                desired: desired,
                successOrdering: .acquiring,
                failureOrdering: .relaxed
            )
            .exchanged
    }

    /// Sleeps while the word is `expected`, until `deadline` at the latest; may return early.
    ///
    /// - Returns: False if the deadline has passed.
    func wait(while expected: UInt32, until deadline: UInt64) -> Bool {
        unsafe drover_futex_wait(self.pointer, expected, deadline) != ETIMEDOUT
    }

    /// Wakes at most `count` sleepers.
    func wake(_ count: CInt) {
        unsafe drover_futex_wake(self.pointer, count)
    }
}
