// SPDX-License-Identifier: Apache-2.0

internal import Dispatch
internal import DroverZMQ
internal import Glibc
internal import Logging

/// A signal that asks a worker or a broker to shut down.
public enum ShutdownSignal: Hashable, Sendable {
    /// SIGTERM.
    case terminate
    /// SIGINT.
    case interrupt

    /// The kernel's number.
    private var number: CInt {
        switch self {
        case .terminate: SIGTERM
        case .interrupt: SIGINT
        }
    }

    package var name: String {
        switch self {
        case .terminate: "SIGTERM"
        case .interrupt: "SIGINT"
        }
    }

    /// Runs an action at each of the signals, on a thread of libdispatch, until the task is cancelled.
    static func hear(
        _ signals: [ShutdownSignal],
        logger: Logger,
        _ action: @escaping @Sendable (ShutdownSignal) -> Void
    ) async {
        let over = ReadySignal<Void>()
        while !Task.isCancelled {
            do {
                _ = try LoopThread.start(named: "drover-signals") {
                    self.hear(signals, logger: logger, action, until: over)
                }
                break
            } catch {
                logger.warning("no thread to hear signals by: tried again", metadata: [LogKeys.reason: "\(error)"])
                try? await Task.sleep(for: .seconds(1))
            }
        }
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
        over.set(())
    }

    /// Sees to it that the signals are heard until it is over.
    ///
    /// libdispatch hears each by a descriptor of its own, and neither says nor mends it when it gets none: it is asked again
    /// then. The kernel keeps what comes meanwhile. A thread waits here, for libdispatch's timers need a descriptor too.
    private static func hear(
        _ signals: [ShutdownSignal],
        logger: Logger,
        _ action: @escaping @Sendable (ShutdownSignal) -> Void,
        until over: ReadySignal<Void>
    ) {
        var isTold = false
        while over.current == nil {
            let sources = signals.map { signal in
                let source = DispatchSource.makeSignalSource(signal: signal.number, queue: .global())
                source.setEventHandler { action(signal) }
                source.activate()
                return source
            }
            defer { for source in sources { source.cancel() } }
            for _ in 0..<20 {
                if signals.allSatisfy({ Descriptors.hear(signal: $0.number) }) { return over.wait() }
                if over.wait(until: MonotonicClock.deadline(after: .milliseconds(5))) != nil { return }
            }
            guard !isTold else { continue }
            isTold = true
            logger.warning("no descriptor is left to hear signals by: asked again until there is one; raise ulimit -n")
        }
    }
}
