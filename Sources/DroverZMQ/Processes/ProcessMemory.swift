// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ

/// What others may see of this process's memory.
package enum ProcessMemory {
    /// The process holds secret keys from now on: it leaves no dump, and no other process of its user may read it.
    ///
    /// Programs that it starts aren't concerned.
    package static func keepsKeys() {
        // Where the kernel refuses, all is as it was.
        _ = drover_forbid_dumps()
    }

    /// Whether it may leave a dump.
    package static var mayBeDumped: Bool { drover_may_dump() != 0 }
}
