// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// The right to run a loop, which one thread holds at a time and may lend.
///
/// The thread that makes the token holds it. The holder lends it when it goes away for a while, and reclaims it when it
/// comes back; if that takes long, a standby thread takes over and becomes the holder. Lending and reclaiming cost one
/// locked instruction each, and no system call unless the standby thread is asleep.
///
/// **The word.** Bits 2 and up count the loans (no number occurs twice: 2^62 loans take longer than any machine lasts),
/// bit 0 says that the current loan is outstanding, bit 1 that a standby thread is asleep. So it is one of
///
///     held(n)            only the holder lends; a standby thread may fall asleep
///     held(n) + asleep   only the holder lends, and then wakes
///     lent(n)            exactly one thread turns this into held(n) and is the holder from then on
///
/// **Why there is one holder.** There is one when the token is made, in held(0). Only the holder moves held(n) to
/// lent(n + 1) (`lend`), and by doing so it stops being the holder. lent(n) is left only by a compare-exchange to
/// held(n) (`reclaim`, `takeOver`); the word has the value lent(n) only once in its life, because only held(n - 1)
/// leads there, so at most one thread's exchange succeeds. That thread is the holder. The asleep bit is set only on
/// held(n) and only from held(n), and cleared by `lend` (which replaces the whole word) or `retire`; neither changes
/// who the holder is.
///
/// **Why the loop's state is visible.** `lend` is a releasing exchange; a successful `reclaim` or `takeOver` acquires
/// the value that this `lend` wrote (or that `retire`'s read-modify-write left unchanged, which continues the release
/// sequence). So everything that the previous holder wrote comes before everything that the next one reads.
///
/// **Why a ticket can't be confused.** It contains n. A thread with the ticket of an earlier loan compares with
/// lent(n), a value that the word will never have again.
///
/// **Why a sleeping standby thread is woken.** It sets the bit with a compare-exchange on held(n), and sleeps in the
/// kernel only while the word is held(n) + asleep. The next `lend` exchanges the whole word and finds the bit, because
/// both act on the same word and so are ordered; then it wakes the sleeper. If the lend comes first, the
/// compare-exchange fails; if it comes between the compare-exchange and the sleep, the kernel finds another word and
/// doesn't sleep. The kernel sees 32 of the 64 bits: it could be fooled only if 2^30 loans came in between and none
/// after them.
///
/// `@unchecked Sendable`: `word` never changes as a pointer, what it points to is atomic, and it is freed in `deinit`,
/// when it can no longer be in use.
@safe package final class LoopToken: @unchecked Sendable {
    /// A loan, to be recognized later.
    package struct Ticket: Hashable, Sendable {
        let number: UInt64
    }

    private static let lent: UInt64 = 1
    private static let asleep: UInt64 = 2
    private static let one: UInt64 = 4

    private let word: UnsafeMutablePointer<Atomic<UInt64>>
    private let isRetired = FutexWord(0)

    /// Creates a token that the caller holds.
    package init() {
        unsafe self.word = .allocate(capacity: 1)
        unsafe self.word.initialize(to: Atomic(0))
    }

    deinit {
        unsafe self.word.deinitialize(count: 1)
        unsafe self.word.deallocate()
    }

    /// Lends the token; only the holder may.
    ///
    /// From now on another thread may run the loop. The ticket is needed to reclaim it.
    package func lend() -> Ticket {
        // Only the holder changes the number and the first bit, so they are unchanged at the exchange.
        let held = unsafe self.word.pointee.load(ordering: .relaxed)
        precondition(held & Self.lent == 0, "a token is lent by its holder")
        let next = (held & ~Self.asleep) &+ Self.one | Self.lent
        let old = unsafe self.word.pointee.exchange(next, ordering: .releasing)
        if old & Self.asleep != 0 { unsafe drover_futex_wake(Self.lowHalf(of: self.word), .max) }
        return Ticket(number: next)
    }

    /// Takes back what was lent with this ticket.
    ///
    /// - Returns: Whether the caller holds the token again. If not, another thread took over, and holds it or lent it
    ///   on.
    package func reclaim(_ ticket: Ticket) -> Bool {
        unsafe self.word.pointee
            .compareExchange(
                expected: ticket.number,
                desired: ticket.number & ~Self.lent,
                successOrdering: .acquiring,
                failureOrdering: .relaxed
            )
            .exchanged
    }

    /// Takes the token if a loan seen earlier is still outstanding.
    ///
    /// - Returns: Whether the caller holds the token now.
    package func takeOver(_ seen: Ticket) -> Bool {
        self.reclaim(seen)
    }

    /// The loan that is outstanding now, if any.
    package func currentLoan() -> Ticket? {
        let word = unsafe self.word.pointee.load(ordering: .relaxed)
        return word & Self.lent != 0 ? Ticket(number: word) : nil
    }

    /// Whether a standby thread is asleep, or about to be.
    var hasSleeper: Bool {
        unsafe self.word.pointee.load(ordering: .relaxed) & Self.asleep != 0
    }

    /// Waits until a loan has lasted for a whole period, and takes over.
    ///
    /// It takes only a loan that it also saw at its previous look. While no loan is outstanding, it looks a quarter as
    /// often: a thread that wakes up a thousand times per second takes time from those that work. After `quiet` looks
    /// without any loan in between, it sleeps until the next loan, and then starts looking again. Several threads may
    /// stand by.
    ///
    /// - Parameters:
    ///   - period: How long a loan must last to be taken over.
    ///   - quiet: The number of looks without a loan after which to sleep.
    /// - Returns: True if the caller holds the token now; false after ``retire()``.
    @available(*, noasync)
    package func standByUntilTakenOver(period: Duration = .milliseconds(1), quiet: Int = 25) -> Bool {
        var last = unsafe self.word.pointee.load(ordering: .relaxed) & ~Self.asleep
        var quietLooks = 0
        while true {
            // Only `retire` wakes it early.
            let deadline = MonotonicClock.deadline(after: last & Self.lent != 0 ? period : period * 4)
            while self.isRetired.value == 0 {
                if !self.isRetired.wait(while: 0, until: deadline) { break }
            }
            if self.isRetired.value != 0 { return false }

            let word = unsafe self.word.pointee.load(ordering: .relaxed) & ~Self.asleep
            if word & Self.lent != 0 {
                if word == last && self.takeOver(Ticket(number: word)) { return true }
                quietLooks = 0
            } else if word != last {
                quietLooks = 0
            } else {
                quietLooks += 1
                if quietLooks >= quiet {
                    self.sleepUntilLent(held: word)
                    quietLooks = 0
                }
            }
            last = unsafe self.word.pointee.load(ordering: .relaxed) & ~Self.asleep
        }
    }

    /// Ends all standing by, now and in the future; the holder stays the holder.
    package func retire() {
        // A standby thread that sets its bit after the exchange below acquires from it and sees the flag. One that set
        // its bit before finds it gone, in the kernel or afterwards, and also sees the flag.
        self.isRetired.store(1)
        self.isRetired.wake(.max)
        _ = unsafe self.word.pointee.bitwiseAnd(~Self.asleep, ordering: .acquiringAndReleasing)
        unsafe drover_futex_wake(Self.lowHalf(of: self.word), .max)
    }

    /// Sleeps while the word is `held` with the asleep bit.
    private func sleepUntilLent(held: UInt64) {
        let sleeping = held | Self.asleep
        let result = unsafe self.word.pointee.compareExchange(
            expected: held,
            desired: sleeping,
            successOrdering: .acquiringAndReleasing,
            failureOrdering: .relaxed
        )
        // Another standby thread may already have set the bit.
        guard result.exchanged || result.original == sleeping else { return }
        while self.isRetired.value == 0 {
            guard unsafe self.word.pointee.load(ordering: .acquiring) == sleeping else { return }
            _ = unsafe drover_futex_wait(
                Self.lowHalf(of: self.word),
                UInt32(truncatingIfNeeded: sleeping),
                MonotonicClock.never
            )
        }
    }

    /// The half of the word that the kernel compares: the one with the two bits and the lower part of the number.
    private static func lowHalf(of word: UnsafeMutablePointer<Atomic<UInt64>>) -> UnsafeRawPointer {
        #if _endian(little)
        UnsafeRawPointer(word)
        #else
        unsafe UnsafeRawPointer(word) + 4
        #endif
    }
}
