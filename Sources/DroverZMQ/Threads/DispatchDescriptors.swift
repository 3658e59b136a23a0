// SPDX-License-Identifier: Apache-2.0

import Dispatch

/// The descriptors that libdispatch opens for itself, once in a process, when it first needs them.
///
/// When it gets none it ends the process, or its timers never fire. So a worker and a broker let it open them before
/// they listen: afterwards strangers may have taken all there are.
package enum DispatchDescriptors {
    /// Returns when they are open.
    @available(*, noasync)
    package static func open() { self.opening }

    private static let opening: Void = {
        let fired = ReadySignal<Void>()
        let slept = ReadySignal<Void>()
        // The main queue's, which a program with an asynchronous `main` needs when that first suspends.
        DispatchQueue.main.async {}
        // A clock has a descriptor of its own: that of timers, and that of tasks which sleep.
        DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(1)) { fired.set(()) }
        Task {
            try? await Task.sleep(for: .milliseconds(1))
            slept.set(())
        }
        // Tasks may have to wait for others; nobody waits for them for long.
        let deadline = MonotonicClock.deadline(after: .seconds(1))
        _ = fired.wait(until: deadline)
        _ = slept.wait(until: deadline)
    }()
}
