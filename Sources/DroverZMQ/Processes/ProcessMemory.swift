// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// What others may see of this process's memory.
package enum ProcessMemory {
    /// Protects secret keys from now on: the process leaves no dump, and no other process of its user may read it.
    ///
    /// Programs that it starts aren't affected.
    package static func keepsKeys() {
        // If the kernel refuses, nothing changes.
        _ = drover_forbid_dumps()
    }

    /// Whether the process may leave a dump.
    package static var mayBeDumped: Bool { drover_may_dump() != 0 }
}
