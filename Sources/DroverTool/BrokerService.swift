// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Synchronization

/// A broker as the service manager sees it: ready, alive, stopping.
struct BrokerService {
    let broker: RunningBroker

    /// Runs until a signal ends it, and keeps the service manager informed, if there is one.
    func run() async {
        guard let notifier = ServiceNotifier(environment: ProcessInfo.processInfo.environment) else {
            return await self.broker.runUntilAsked()
        }
        notifier.ready("listens at \(self.broker.endpoint)")
        let isTold = Atomic(false)
        let tell = { @Sendable in
            if !isTold.exchange(true, ordering: .acquiringAndReleasing) { notifier.stopping() }
        }
        // In addition to the broker, which drains on the same signals.
        let signals = [SIGTERM, SIGINT].map { DispatchSource.makeSignalSource(signal: $0) }
        for signal in signals {
            signal.setEventHandler { tell() }
            signal.activate()
        }
        defer { for signal in signals { signal.cancel() } }
        await withTaskGroup { group in
            if notifier.watchdog != nil {
                group.addTask { [broker = self.broker] in
                    await notifier.keepReporting { await broker.responds(within: $0) }
                }
            }
            await self.broker.runUntilAsked()
            group.cancelAll()
        }
        // A broker without work is done before the signal handler gets its turn.
        tell()
    }
}
