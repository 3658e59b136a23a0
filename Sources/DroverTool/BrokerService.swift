// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation

/// A broker as the service manager sees it: ready, alive, stopping.
struct BrokerService {
    let broker: RunningBroker

    /// Runs until a signal asks for the end; tells the manager, if there is one, all the while.
    func run() async {
        guard let notifier = ServiceNotifier(environment: ProcessInfo.processInfo.environment) else {
            return await self.broker.runUntilAsked()
        }
        notifier.ready("listens at \(self.broker.endpoint)")
        // Beside the broker, which drains on the same signals.
        let signals = [SIGTERM, SIGINT].map { DispatchSource.makeSignalSource(signal: $0) }
        for signal in signals {
            signal.setEventHandler { notifier.stopping() }
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
    }
}
