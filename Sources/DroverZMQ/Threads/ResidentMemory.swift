// SPDX-License-Identifier: Apache-2.0

import Glibc

/// How much memory this process uses, as the kernel counts it.
package enum ResidentMemory {
    /// Resident bytes; 0 if the kernel doesn't report them.
    package static func byteCount() -> Int {
        // Numbers separated by spaces, as bytes; the second counts resident pages.
        let descriptor = unsafe open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return 0 }
        defer { close(descriptor) }
        var text = [UInt8](repeating: 0, count: 128)
        let count = unsafe text.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 else { return 0 }
        let fields = text.prefix(count).split(separator: UInt8(ascii: " "))
        guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else { return 0 }
        return pages * sysconf(CInt(_SC_PAGESIZE))
    }
}
