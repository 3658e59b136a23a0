// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverZMQ
internal import Synchronization

/// The request that the current task or thread works on.
enum CurrentJob {
    /// Set for asynchronous handlers, and inherited by the tasks that they start.
    @TaskLocal private static var inTask: JobContext?
    /// Set for synchronous handlers on the handler threads.
    private static let onThread = ThreadPlace<JobContext>()
    /// Whether this process has had a worker: else nobody needs to look.
    private static let isPossible = Atomic<Bool>(false)

    /// There is a worker in this process.
    static func prepare() { self.isPossible.store(true, ordering: .relaxed) }

    /// The request of the task.
    static var ofTask: JobContext? { self.isPossible.load(ordering: .relaxed) ? self.inTask : nil }

    /// The request of the thread, or of the task that it runs.
    @available(*, noasync)
    static var ofThread: JobContext? {
        self.isPossible.load(ordering: .relaxed) ? self.onThread.current ?? self.inTask : nil
    }

    /// The request whose handler makes a call, on a thread or in a task.
    static var maker: JobContext? {
        guard self.isPossible.load(ordering: .relaxed) else { return nil }
        return self.onThread.here ?? self.inTask
    }

    static func with<Value>(task context: JobContext, _ body: () async throws -> Value) async rethrows -> Value {
        try await self.$inTask.withValue(context, operation: body)
    }

    @available(*, noasync)
    static func with<Value>(thread context: JobContext, _ body: () throws -> Value) throws -> Value {
        try self.onThread.with(context, body)
    }
}

/// The calls that a handler waits for.
///
/// The worker's loop looks at them now and then: where all slots are held by handlers that wait for calls that wait for slots,
/// nothing would ever go on.
struct AwaitedCalls: ~Copyable {
    private var waits: [(key: Int, calls: [AnyAsyncResult])] = []
    private var lastKey = 0
    /// The loop has given the slot back; a handler that goes on takes one first.
    var hasLostSlot = false

    mutating func begin(_ calls: [AnyAsyncResult]) -> Int {
        self.lastKey += 1
        self.waits.append((self.lastKey, calls))
        return self.lastKey
    }

    /// Whether all that the handler waits for is held, for limits or ordering keys.
    var areHeld: Bool { self.waits.allSatisfy { $0.calls.allSatisfy { $0.isTerminal || $0.isHeld } } }

    /// The calls that the handler waits for.
    var calls: [AnyAsyncResult] { self.waits.flatMap { $0.calls } }

    /// - Returns: Whether the handler's slot was given back meanwhile.
    mutating func end(_ key: Int) -> Bool {
        self.waits.removeAll { $0.key == key }
        return exchange(&self.hasLostSlot, with: false)
    }

    /// Whether the handler waits, and for nothing but calls that wait for slots.
    func waitForSlots(at now: Instant) -> Bool {
        !self.waits.isEmpty
            && self.waits.allSatisfy { wait in
                wait.calls.contains { !$0.isTerminal }
                    && wait.calls.allSatisfy { $0.isTerminal || $0.waitsForSlot(at: now) }
            }
    }
}
