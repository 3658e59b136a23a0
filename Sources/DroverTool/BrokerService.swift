// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import Foundation
import Logging

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
                group.addTask { [endpoint = self.broker.endpoint] in
                    guard let probe = BrokerProbe(endpoint) else { return }
                    await notifier.keepReporting { await probe.isAnswered(within: $0) }
                    await probe.close()
                }
            }
            await self.broker.runUntilAsked()
            group.cancelAll()
        }
    }
}

/// Asks a broker of this process for a sign of life, the way its clients would.
///
/// The loop that owns the broker's socket answers, so a broker whose loop is stuck doesn't, although the connection
/// stands and the process runs.
struct BrokerProbe: Sendable {
    private let client: Client

    /// Nothing if there can't be a client for that address.
    init?(_ endpoint: String) {
        var configuration = ClientConfiguration()
        configuration.name = "watchdog"
        configuration.logger = Logger(label: "drover.watchdog") { _ in SwiftLogNoOpLogHandler() }
        guard let client = try? Client([Self.reachable(endpoint)], configuration: configuration) else { return nil }
        self.client = client
    }

    /// Where one's own process is reached that listens at all addresses.
    static func reachable(_ endpoint: String) -> String {
        for (everywhere, here) in [("tcp://0.0.0.0:", "tcp://127.0.0.1:"), ("tcp://[::]:", "tcp://[::1]:")]
        where endpoint.hasPrefix(everywhere) {
            return here + endpoint.dropFirst(everywhere.count)
        }
        return endpoint
    }

    func isAnswered(within limit: Duration) async -> Bool {
        // Whatever the reason, there was no answer.
        (try? await self.client.ping(timeout: limit)) != nil
    }

    func close() async { await self.client.close(grace: .zero) }
}
