// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// Which signals the program that we are part of has blocked, as its main thread shows it.
///
/// The mask of the thread that asks says nothing: our own loops block signals, and so do the threads that Swift's tasks run on.
enum ProgramSignals {
    /// What the main thread blocks; nil if the system doesn't say it.
    static func mainMask() -> sigset_t? {
        guard let bits = self.blockedBits(inStatus: self.status()) else { return nil }
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        // Fails for the two that the C library keeps for itself, which nobody blocks.
        for number in CInt(1)...64 where bits & 1 << UInt64(number - 1) != 0 { unsafe sigaddset(&mask, number) }
        return mask
    }

    /// What this thread blocks.
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
