// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// Which signals the program we are part of has blocked, judging by its main thread.
///
/// The calling thread's mask says nothing: our own loops block signals, and so do the threads that run Swift's tasks.
enum ProgramSignals {
    /// The signals that the main thread blocks; nil if the system doesn't report them.
    static func mainMask() -> sigset_t? {
        guard let bits = self.blockedBits(inStatus: self.status()) else { return nil }
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        // Fails only for the two signals that the C library keeps for itself, which are never blocked.
        for number in CInt(1)...64 where bits & 1 << UInt64(number - 1) != 0 { unsafe sigaddset(&mask, number) }
        return mask
    }

    /// The signals that this thread blocks.
    static func currentMask() -> sigset_t {
        var mask = sigset_t()
        unsafe pthread_sigmask(SIG_SETMASK, nil, &mask)
        return mask
    }

    /// The mask in the text of a file such as `/proc/self/status`; nil if it isn't there.
    static func blockedBits(inStatus text: String) -> UInt64? {
        let line = text.split(separator: "\n").first { $0.hasPrefix("SigBlk:") }
        guard let digits = line?.split(whereSeparator: { $0 == "\t" || $0 == " " }).last else { return nil }
        return UInt64(digits, radix: 16)
    }

    private static func status() -> String {
        let file = unsafe open("/proc/self/status", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(file, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer.prefix(count)
        }
    }
}
