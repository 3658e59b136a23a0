// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// What a thread has learned about the types that it wrote and read through `Codable`.
///
/// Each thread has its own, so that nothing is locked or counted atomically while a value is coded. It ends with the
/// thread.
final class ThreadSessions {
    private let encoding = EncodingSession()
    private let decoding = DecodingSession()

    /// Frees what a thread has, at its end; nil if the process has no more keys.
    private static let key: pthread_key_t? = {
        var key = pthread_key_t()
        let failed = unsafe pthread_key_create(&key) { sessions in
            guard let sessions = unsafe sessions else { return }
            unsafe Unmanaged<ThreadSessions>.fromOpaque(sessions).release()
        }
        return failed == 0 ? key : nil
    }()

    private static var current: ThreadSessions {
        guard let key = self.key else { return ThreadSessions() }
        if let known = unsafe pthread_getspecific(key) {
            return unsafe Unmanaged<ThreadSessions>.fromOpaque(known).takeUnretainedValue()
        }
        let sessions = ThreadSessions()
        let kept = unsafe Unmanaged.passRetained(sessions)
        if unsafe pthread_setspecific(key, kept.toOpaque()) != 0 { unsafe kept.release() }
        return sessions
    }

    /// The session for a value that begins now; inside another value, it is a separate one.
    static var freeEncoding: EncodingSession {
        var session = self.current.encoding
        while session.isBusy { session = session.inner }
        return session
    }

    /// The session for a value that begins now; inside another value, it is a separate one.
    static var freeDecoding: DecodingSession {
        var session = self.current.decoding
        while session.isBusy { session = session.inner }
        return session
    }
}
