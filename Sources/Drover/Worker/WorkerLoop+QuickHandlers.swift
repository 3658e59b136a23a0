// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverCodec
internal import DroverCore
internal import DroverWire
internal import DroverZMQ
internal import Logging
internal import Synchronization

extension WorkerLoop {
    /// Lets run what came in this turn: quick handlers here, the others on the handler threads.
    ///
    /// A request that is to run here came before those that go to the threads, or is done so soon that they don't notice:
    /// it gets its slot first. With a single slot requests run in the order in which they came.
    ///
    /// - Returns: False if another thread has taken the loop: nothing of it may be touched any more.
    @available(*, noasync)
    func startJobs() -> Bool {
        let hasSlot = !self.quick.isEmpty && self.core.threads.takeSlot()
        if !hasSlot, !self.quick.isEmpty { self.handOverQuickJobs() }
        if !self.toRun.isEmpty { self.core.threads.submit(&self.toRun, core: self.core) }
        guard hasSlot else { return true }
        guard self.runQuickJobs() else { return false }
        self.performActions()
        if !self.toRun.isEmpty { self.core.threads.submit(&self.toRun, core: self.core) }
        return true
    }

    /// All slots are taken: quick requests wait like everybody else, before those that came later.
    private func handOverQuickJobs() {
        let later = self.toRun
        self.toRun = []
        while let job = self.quick.popFirst() { self.enqueue(job) }
        self.toRun += later
        self.arena.removeAll(keepingCapacity: true)
    }

    /// Runs the handlers that are quicker than the way to another thread, in a slot that was taken for them.
    ///
    /// - Returns: False if one was not, and another thread has taken the loop: nothing of it may be touched any more.
    @available(*, noasync)
    private func runQuickJobs() -> Bool {
        var writer = PackWriter(capacity: 256, limits: self.core.codecLimits)
        // This thread's own hold on the arguments: another one may take the loop over while a handler reads them.
        let arena = self.arena
        var count = 0
        while let job = self.quick.popFirst() {
            // The clock costs as much as a quick handler; one in sixteen is timed.
            let isChunk = job.handler.isChunk
            let started = count & 15 == 0 || isChunk ? self.core.now() : nil
            count += 1
            self.lentSlot = job.handler.isTimed ? job.slot : nil
            let run = Self.run(job, arena, &writer, core: self.core)
            if let ticket = run.ticket, !self.core.loopToken.reclaim(ticket) {
                Self.comeBackLate(job, run.failure?.body, writer, core: self.core)
                return false
            }
            var ran: UInt32?
            if let started {
                let nanoseconds = self.core.now().nanoseconds(since: started)
                job.handler.took(nanoseconds: nanoseconds)
                if isChunk { ran = UInt32(roundedMicroseconds: nanoseconds) }
            }
            // What the handler emitted and reported comes before its answer, as it does from other threads.
            if !self.core.mailbox.isEmpty {
                var posts = self.core.mailbox.takeAll()
                while let post = posts.next() { self.take(post.kind) }
            }
            self.answer(job.slot, run.failure?.body, value: writer, ran: ran ?? job.handler.usualMicroseconds)
            writer.removeAll()
            self.performActions()
        }
        self.lentSlot = nil
        self.arena.removeAll(keepingCapacity: self.arena.capacity < 1 << 20)
        self.core.threads.releaseSlot()
        return true
    }

    /// Runs one handler while the loop is lent: nothing of the loop is touched here.
    static func run(
        _ job: QuickJob,
        _ arena: [UInt8],
        _ writer: inout PackWriter,
        core: WorkerCore
    ) -> QuickRun {
        guard case .sync(let body) = job.handler.body else { return QuickRun(ticket: nil, failure: nil) }
        let ticket = core.loopToken.lend()
        do {
            try unsafe arena.withUnsafeBytes { bytes in
                let arguments = unsafe UnsafeRawBufferPointer(rebasing: bytes[job.payload])
                var reader = unsafe PackReader(over: arguments, limits: core.codecLimits)
                if let callbacks = job.callbacks { reader.context = callbacks } else { reader.context = core }
                try body(&reader, &writer)
            }
            return QuickRun(ticket: ticket, failure: nil)
        } catch {
            return QuickRun(ticket: ticket, failure: QuickFailure(core.errorBody(error, function: job.handler.name)))
        }
    }

    /// Another thread has the loop: the answer goes to it like that of any handler thread.
    static func comeBackLate(_ job: QuickJob, _ failure: ErrorBody?, _ writer: borrowing PackWriter, core: WorkerCore) {
        job.handler.tookTooLong()
        core.counters.takeovers.count()
        let reply: WorkerReply = failure.map { .error($0) } ?? .value(RequestBytes(copying: writer))
        core.post(.finishedLate(slot: job.slot, reply))
        core.threads.releaseSlot()
    }

    /// Gives a quick job to the handler threads after all.
    func enqueue(_ job: QuickJob) {
        let box = unsafe self.arena.withUnsafeBytes { bytes in
            unsafe MessageBox(Message(copying: UnsafeRawBufferPointer(rebasing: bytes[job.payload])))
        }
        // It asks for no context, and so for no caller.
        self.enqueue(job.slot, handler: job.handler, box, 0..<box.count, from: nil)
    }
}

/// What came of a handler that ran beside the loop.
struct QuickRun {
    /// The loan that it ran under.
    let ticket: LoopToken.Ticket?
    let failure: QuickFailure?
}

/// What its caller is told, apart from the run, which is copied for each call and hardly ever fails.
final class QuickFailure {
    let body: ErrorBody

    init(_ body: ErrorBody) { self.body = body }
}
