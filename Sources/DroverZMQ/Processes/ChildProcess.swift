// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc
import Synchronization

/// A child that runs this program again, in a session of its own.
///
/// ``end(grace:)`` must be called once: it stops whatever is left of the session and lets the system forget the child.
package final class ChildProcess: Sendable {
    /// How a process ended.
    package enum Cause: Equatable, Sendable, CustomStringConvertible {
        case exited(status: CInt)
        case killed(signal: CInt)
        /// Another part of the program has reaped it.
        case unknown

        /// The cause in words.
        package var description: String {
            switch self {
            case .exited(let status): "exited with status \(status)"
            case .killed(let signal): unsafe "was killed by signal \(signal) (\(String(cString: strsignal(signal))))"
            case .unknown: "ended"
            }
        }
    }

    /// The process id, which is also the session's; no other process gets it before ``end(grace:)``.
    package let pid: CInt
    private let isReaped = Mutex(false)

    private init(pid: pid_t) { self.pid = pid }

    /// Runs this program again, with the same arguments.
    ///
    /// The child has this process's standard output and error, no input, one end of `link`, and no other descriptor.
    ///
    /// - Parameters:
    ///   - variable: A variable for the child's environment, as `NAME=VALUE`.
    ///   - descriptor: The descriptor that the child finds as ``ByteLink/inherited``.
    /// - Returns: The child.
    /// - Throws: ``ZMQError`` if the system can't start one.
    package static func startAgain(adding variable: String, passing descriptor: CInt) throws(ZMQError) -> ChildProcess {
        var arguments = unsafe CommandLine.arguments.map { unsafe strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = unsafe [strdup(variable)]
        var next = unsafe drover_environment()
        while let place = unsafe next, let entry = unsafe place.pointee {
            unsafe environment.append(strdup(entry))
            unsafe next = place + 1
        }
        unsafe environment.append(nil)
        defer {
            unsafe arguments.forEach { unsafe free($0) }
            unsafe environment.forEach { unsafe free($0) }
        }
        var pid: pid_t = 0
        let code = unsafe drover_spawn(&pid, "/proc/self/exe", &arguments, &environment, descriptor)
        guard code == 0 else { throw ZMQError(errno: code, .startProcess) }
        return ChildProcess(pid: pid)
    }

    /// How the child ended, or nil if it is still running.
    package var cause: Cause? {
        var status: CInt = 0
        return switch unsafe drover_look_at_child(self.pid, &status) {
        case 0: nil
        case 1: .exited(status: status)
        case 2: .killed(signal: status)
        default: .unknown
        }
    }

    /// Waits until the child has ended.
    ///
    /// - Returns: How it ended, or nil if it is still running.
    @available(*, noasync)
    package func wait(within limit: Duration) -> Cause? {
        let deadline = MonotonicClock.deadline(after: limit)
        var pause: UInt32 = 100
        while true {
            if let cause = self.cause { return cause }
            guard MonotonicClock.now() < deadline else { return nil }
            usleep(pause)
            pause = min(pause * 2, 10_000)
        }
    }

    /// Ends the child and all processes of its session: sends them SIGTERM, and kills what is left after the grace.
    ///
    /// - Parameter grace: How long they may take; zero kills them at once.
    /// - Returns: How the child itself ended.
    @available(*, noasync)
    @discardableResult
    package func end(grace: Duration = .zero) -> Cause {
        self.isReaped.withLock { isReaped in
            guard !isReaped else { return .unknown }
            if grace > .zero {
                _ = drover_signal_session(self.pid, SIGTERM)
                let deadline = MonotonicClock.deadline(after: grace)
                var pause: UInt32 = 200
                while MonotonicClock.now() < deadline, self.cause == nil || drover_signal_session(self.pid, 0) > 0 {
                    usleep(pause)
                    pause = min(pause * 2, 50_000)
                }
            }
            // Until the child is reaped, no other process or session can have its id.
            var rounds = 0
            while drover_signal_session(self.pid, SIGKILL) > 0, rounds < 1000 {
                // The processes need a moment to end, and one may have started another.
                usleep(1000)
                rounds += 1
            }
            kill(self.pid, SIGKILL)
            let cause = self.wait(within: .seconds(5)) ?? .unknown
            drover_reap(self.pid)
            isReaped = true
            return cause
        }
    }
}

/// What a child does on its own side.
package enum ChildSide {
    /// Makes this process's session die with its parent, and makes it the first to be killed when memory runs out.
    ///
    /// The calling thread must last as long as the process.
    ///
    /// - Parameter parent: The process that started this one.
    /// - Returns: False if the parent is already gone.
    package static func dieWithParent(_ parent: CInt) -> Bool {
        let file = unsafe open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
        if file >= 0 {
            // This may be refused, and then the system chooses its own order.
            _ = unsafe write(file, "500", 3)
            close(file)
        }
        return drover_die_with_parent(parent) == 0
    }

    /// Kills all processes of the session that this process leads, itself included.
    package static func killOwnSession() -> Never {
        drover_kill_own_session(0)
        _exit(70)
    }

    /// Lets signals be delivered to this thread and to programs that it starts.
    package static func unblockSignals() { drover_unblock_signals() }
}
