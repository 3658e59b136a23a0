// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Puts a thread to sleep until another one wakes it.
///
/// One thread parks, any thread unparks. An unpark that comes first is remembered, once, and ends the next park; what
/// the waking thread wrote before it is visible afterwards. A parker can be reused.
package final class Parker: Sendable {
    // The word: `idle`: no thread sleeps; `token`: an unpark is remembered; `waiting`: the thread sleeps or is about
    // to. Only the parking thread writes `idle` and `waiting`; any thread writes `token`.
    private static let idle: UInt32 = 0
    private static let token: UInt32 = 1
    private static let waiting: UInt32 = 2

    private let word = FutexWord(Parker.idle)

    package init() {}

    /// Sleeps until ``unpark()`` or the deadline.
    ///
    /// - Parameter deadline: A reading of ``MonotonicClock``; nil waits forever.
    /// - Returns: Whether it was unparked. Spurious wake-ups don't return.
    @available(*, noasync)
    package func park(until deadline: UInt64? = nil) -> Bool {
        // An acquiring exchange takes the token, and pairs with the releasing one in `unpark`.
        guard self.word.compareExchangeRelaxed(Self.idle, Self.waiting) else {
            // Only a token can be there, and only this thread takes it.
            _ = self.word.exchange(Self.idle)
            return true
        }
        while true {
            let inTime = self.word.wait(while: Self.waiting, until: deadline ?? MonotonicClock.never)
            if inTime && self.word.value == Self.waiting { continue }
            // A token that came together with the deadline still counts.
            return self.word.exchange(Self.idle) == Self.token
        }
    }

    /// Wakes the parked thread, or lets its next park return at once.
    package func unpark() {
        // The caller's reference keeps the word alive, although the other thread may already have gone on.
        if self.word.exchange(Self.token) == Self.waiting {
            self.word.wake(1)
        }
    }
}

extension Parker {
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let code = unsafe pthread_key_create(&key) { unsafe releaseParker($0) }
        precondition(code == 0, "no thread key is left")
        return key
    }()

    /// The current thread's own parker.
    ///
    /// Users must not leave an unpark behind: finish each exchange before the next begins.
    @available(*, noasync)
    package static var current: Parker {
        if let known = unsafe pthread_getspecific(Self.key) {
            return unsafe Unmanaged<Parker>.fromOpaque(known).takeUnretainedValue()
        }
        let parker = Parker()
        let code = unsafe pthread_setspecific(Self.key, Unmanaged.passRetained(parker).toOpaque())
        precondition(code == 0, "no memory for a thread's parker")
        return parker
    }
}

/// Called by the system when a thread that had a parker ends.
private func releaseParker(_ pointer: UnsafeMutableRawPointer?) {
    guard let pointer = unsafe pointer else { return }
    unsafe Unmanaged<Parker>.fromOpaque(pointer).release()
}
