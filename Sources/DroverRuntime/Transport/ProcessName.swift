// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// What a peer is called that was given no name.
package enum ProcessName {
    /// Host and process id, so that no two processes have the same: an order to a worker's name goes to all of that name.
    package static var current: String {
        var bytes = [CChar](repeating: 0, count: 256)
        let isKnown = unsafe gethostname(&bytes, bytes.count - 1) == 0
        let host =
            isKnown
            ? String(decoding: bytes.prefix { $0 != 0 && $0 != 46 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            : "host"
        return "\(host)-\(getpid())"
    }
}
