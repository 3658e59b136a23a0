// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import Synchronization

/// A registered handler with its types erased.
final class Handler: Sendable {
    /// Decodes the arguments, runs the closure, encodes the result.
    typealias SyncBody = @Sendable (inout PackReader, inout PackWriter) throws -> Void
    typealias ContextBody = @Sendable (inout PackReader, JobContext, inout PackWriter) throws -> Void
    /// Decodes the arguments and returns what is to be awaited.
    typealias AsyncBody = @Sendable (inout PackReader, JobContext) throws -> AsyncWork

    enum Body: Sendable {
        case sync(SyncBody)
        case syncWithContext(ContextBody)
        case async(AsyncBody)
    }

    let name: String
    let body: Body
    let limit: Int?
    let timeLimits: TimeLimits
    /// Whether they are those of all functions of the worker.
    let hasUsualLimits: Bool
    /// Whether a run has to be watched.
    let isTimed: Bool
    /// What a child process runs, if this handler has its own.
    let isolated: IsolatedFunction?
    /// Runs requests that carry many calls; nil if each must be a request: time limits and processes are for single calls.
    let chunk: Handler?
    /// Whether this is such a handler: its runs are as long as its requests make them.
    let isChunk: Bool
    /// What a run usually takes, in nanoseconds; `unknown` until it ran once.
    private let averageRun = Atomic<UInt64>(Handler.unknown)

    /// Its arguments have held callbacks: it may wait for its clients, so it never runs beside the sockets.
    private let takesCallbacks = Atomic<Bool>(false)

    private static let unknown = UInt64.max

    /// Whether it runs as a task.
    var isAsync: Bool { if case .async = self.body { true } else { false } }

    /// - Parameters:
    ///   - name: The function's name.
    ///   - body: What runs.
    ///   - limit: How many may run at once.
    ///   - timeLimits: Its own limits; nil takes the usual ones.
    ///   - usualLimits: Those of the worker.
    ///   - isolated: What a child runs.
    init(
        name: String,
        body: Body,
        limit: Int?,
        timeLimits: TimeLimits?,
        usualLimits: TimeLimits,
        isolated: IsolatedFunction? = nil
    ) {
        self.name = name
        self.body = body
        self.limit = limit
        self.timeLimits = timeLimits ?? usualLimits
        self.hasUsualLimits = timeLimits == nil
        self.isTimed = !self.timeLimits.isUnlimited
        self.isolated = isolated
        self.isChunk = false
        self.chunk = isolated == nil && !self.isTimed ? Handler(chunksOf: body, name: name, limit: limit) : nil
    }

    /// The handler of requests that carry many calls of a function.
    private init(chunksOf body: Body, name: String, limit: Int?) {
        self.name = name
        self.body = Self.chunked(body, name: name)
        self.limit = limit
        self.timeLimits = TimeLimits()
        self.hasUsualLimits = true
        self.isTimed = false
        self.isolated = nil
        self.isChunk = true
        self.chunk = nil
    }

    /// What a run is likely to take, in nanoseconds; the maximum if it never ran.
    var expectedRun: UInt64 { self.averageRun.load(ordering: .relaxed) }

    /// Whether a run that is likely to be short may run beside the sockets.
    var mayRunBesideLoop: Bool { !self.takesCallbacks.load(ordering: .relaxed) }

    /// A callback was among its arguments.
    func gotCallback() {
        if self.mayRunBesideLoop { self.takesCallbacks.store(true, ordering: .relaxed) }
    }

    /// The same as a broker is told it: in microseconds, 0 if it never ran.
    var usualMicroseconds: UInt32 {
        let nanoseconds = self.expectedRun
        return nanoseconds == Self.unknown ? 0 : UInt32(roundedMicroseconds: nanoseconds)
    }

    func took(nanoseconds: UInt64) {
        let known = self.averageRun.load(ordering: .relaxed)
        let next: UInt64
        if known == Self.unknown {
            next = nanoseconds
        } else if nanoseconds < known {
            next = known - (known - nanoseconds) / 4
        } else {
            // A run that was interrupted says little about the handler, so what is long counts for less.
            next = known + (min(nanoseconds, known * 4 + 1000) - known) / 16
        }
        // Two threads may lose one of two samples; an estimate can stand that.
        self.averageRun.store(next, ordering: .relaxed)
    }

    /// What a caller is told whose handler ran until one of its limits.
    func overrun(_ reason: CancellationReason, worker: String) -> ErrorBody {
        let isHard = reason == .hardTimeLimit
        let limit = (isHard ? self.timeLimits.hard : self.timeLimits.soft) ?? .zero
        let place = self.hasUsualLimits ? "the worker's configuration" : "its registration"
        return ErrorBody(
            code: .timeLimitExceeded,
            message: "\(self.name) ran until its \(isHard ? "hard" : "soft") time limit of \(limit): "
                + "give it less to do, or raise timeLimits in \(place)",
            worker: worker
        )
    }

    /// It ran so long that another thread had to take the loop: not beside the sockets again until it proves quick.
    func tookTooLong() { self.averageRun.store(1_000_000_000, ordering: .relaxed) }
}

extension UInt32 {
    /// A time in microseconds, at least one: 0 would say that it isn't known.
    init(roundedMicroseconds nanoseconds: UInt64) { self.init(clamping: nanoseconds / 1000 + 1) }
}

/// An asynchronous handler's run, and how its result is encoded.
typealias AsyncWork = @Sendable () async throws -> @Sendable (inout PackWriter) throws(CodecError) -> Void

/// The handler's result can't be encoded.
@usableFromInline
struct ResultError: Error {
    let cause: CodecError

    @usableFromInline
    init(cause: CodecError) { self.cause = cause }
}

/// The arguments are not those that the handler takes.
@usableFromInline
struct ArgumentError: Error {
    let cause: CodecError

    @usableFromInline
    init(cause: CodecError) { self.cause = cause }
}
