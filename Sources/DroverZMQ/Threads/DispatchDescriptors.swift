// SPDX-License-Identifier: Apache-2.0

import Dispatch

/// The descriptors that libdispatch opens for itself, once per process, when it first needs them.
///
/// If it can't get them, it ends the process, or its timers never fire. So a worker and a broker let it open them
/// before they listen: afterwards, strangers' connections may have taken all there are.
package enum DispatchDescriptors {
    /// Returns once they are open.
    @available(*, noasync)
    package static func open() { self.opening }

    private static let opening: Void = {
        let fired = ReadySignal<Void>()
        let slept = ReadySignal<Void>()
        // The main queue's descriptor, which a program with an asynchronous `main` needs when `main` first suspends.
        DispatchQueue.main.async {}
        // Each clock has a descriptor: one for timers, one for sleeping tasks.
        DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(1)) { fired.set(()) }
        Task {
            try? await Task.sleep(for: .milliseconds(1))
            slept.set(())
        }
        // These tasks may have to wait for others, so wait for them only briefly.
        let deadline = MonotonicClock.deadline(after: .seconds(1))
        _ = fired.wait(until: deadline)
        _ = slept.wait(until: deadline)
    }()
}
