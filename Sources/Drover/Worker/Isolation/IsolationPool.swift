// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverZMQ
internal import Glibc
internal import Synchronization

/// A worker's child processes: those that wait for a call, and the calls that have one.
///
/// A call takes one that waits or starts one, so there are never more than handlers that run at once.
final class IsolationPool: Sendable {
    private struct State {
        var idle: [IsolatedChild] = []
        var runs: [IsolatedRun] = []
        var isClosed = false
    }

    let functions: [IsolatedFunction]
    let invitation: ChildServer.Invitation
    let grace: Duration
    /// The largest error that is taken from a child; the codec bounds the results.
    let maxErrorBytes: Int
    private let state = Mutex(State())

    /// - Returns: nil if no handler is isolated.
    init?(_ handlers: [String: Handler], grace: Duration, maxErrorBytes: Int) {
        self.functions = Self.ordered(handlers)
        guard !self.functions.isEmpty else { return nil }
        self.invitation = ChildServer.Invitation(parent: getpid(), key: Self.key(of: self.functions))
        self.grace = grace
        self.maxErrorBytes = maxErrorBytes
    }

    /// The isolated functions in the order in which both sides number them.
    static func ordered(_ handlers: [String: Handler]) -> [IsolatedFunction] {
        handlers.values.compactMap(\.isolated).sorted { $0.name < $1.name }
    }

    /// Tells workers of one program apart by the names of their isolated functions (FNV-1a).
    static func key(of functions: [IsolatedFunction]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for function in functions {
            for byte in Array(function.name.utf8) + [0] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
        return hash
    }

    /// A call begins.
    ///
    /// - Returns: Whether it may; the worker may have stopped.
    func begin(_ run: IsolatedRun) -> Bool {
        self.state.withLock { state in
            if !state.isClosed { state.runs.append(run) }
            return !state.isClosed
        }
    }

    func end(_ run: IsolatedRun) {
        self.state.withLock { state in
            guard let index = state.runs.firstIndex(where: { $0 === run }) else { return }
            state.runs.swapAt(index, state.runs.count - 1)
            state.runs.removeLast()
        }
    }

    /// A child that waits for a call, the one that served last.
    @available(*, noasync)
    func takeIdle() -> IsolatedChild? {
        while let child = self.state.withLock({ $0.idle.popLast() }) {
            if !child.link.isEnded { return child }
            child.process.end()
        }
        return nil
    }

    @available(*, noasync)
    func giveBack(_ child: IsolatedChild) {
        let isKept = self.state.withLock { state in
            if !state.isClosed { state.idle.append(child) }
            return !state.isClosed
        }
        if !isKept { child.process.end() }
    }

    /// The worker has stopped: ends all children.
    @available(*, noasync)
    func close() {
        let (idle, runs) = self.state.withLock { state in
            state.isClosed = true
            defer { state.idle = [] }
            return (state.idle, state.runs)
        }
        for run in runs { run.kill() }
        for child in idle { child.process.end() }
    }
}
