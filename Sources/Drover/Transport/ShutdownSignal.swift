// SPDX-License-Identifier: Apache-2.0

internal import ServiceLifecycle
internal import UnixSignals

/// A signal that asks a worker or a broker to shut down.
public enum ShutdownSignal: Hashable, Sendable {
    /// SIGTERM.
    case terminate
    /// SIGINT.
    case interrupt

    var signal: UnixSignal {
        switch self {
        case .terminate: .sigterm
        case .interrupt: .sigint
        }
    }

    /// Waits for one of the signals, or cancellation of the task.
    static func next(of signals: [ShutdownSignal]) async -> String {
        for await signal in await UnixSignalsSequence(trapping: signals.map { $0.signal }) { return "\(signal)" }
        return "cancelled"
    }

    /// Waits for one of the signals, a graceful shutdown of the service group, or cancellation of the task.
    ///
    /// Returns what it was, in a word for the log.
    static func first(of signals: [ShutdownSignal]) async -> String {
        await withTaskGroup(of: String.self) { group in
            group.addTask {
                // Returns when the task is cancelled or the service group asks.
                try? await gracefulShutdown()
                return "shutdown"
            }
            if !signals.isEmpty { group.addTask { await Self.next(of: signals) } }
            let first = await group.next() ?? "cancelled"
            group.cancelAll()
            return first
        }
    }
}
