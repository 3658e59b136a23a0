// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A place that each thread has to itself, for what it is working on.
///
/// The object isn't retained: its owner keeps it alive until it is taken out again.
package struct ThreadPlace<Object: AnyObject>: Sendable {
    private let key: pthread_key_t

    /// Makes a place, which must be kept for the life of the process.
    package init() {
        var key = pthread_key_t()
        let code = unsafe pthread_key_create(&key, nil)
        precondition(code == 0, "no thread key is left")
        self.key = key
    }

    /// What this thread has put there.
    @available(*, noasync)
    package var current: Object? { self.here }

    /// The same, for code that is also called from tasks and doesn't suspend.
    package var here: Object? {
        guard let known = unsafe pthread_getspecific(self.key) else { return nil }
        return unsafe Unmanaged<Object>.fromOpaque(known).takeUnretainedValue()
    }

    /// Puts the object there while `body` runs, on this thread.
    @available(*, noasync)
    package func with<Value, Failure: Error>(
        _ object: Object,
        _ body: () throws(Failure) -> Value
    ) throws(Failure) -> Value {
        let former = unsafe pthread_getspecific(self.key)
        unsafe pthread_setspecific(self.key, Unmanaged.passUnretained(object).toOpaque())
        defer {
            unsafe pthread_setspecific(self.key, former)
            // The object must live as long as it can be found.
            withExtendedLifetime(object) {}
        }
        return try body()
    }
}
