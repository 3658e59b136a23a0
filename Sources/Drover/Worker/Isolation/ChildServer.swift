// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec
internal import DroverZMQ
internal import Glibc
internal import Synchronization

/// The child's side: serves the isolated functions to the worker that started this process.
final class ChildServer: Sendable {
    /// What the worker that started this process left in its environment.
    struct Invitation: Sendable {
        static let name = "DROVER_CHILD"

        let parent: CInt
        /// Which worker of the program it is for, as there may be several.
        let key: UInt64

        var variable: String { "\(Self.name)=\(self.parent):\(self.key)" }

        init(parent: CInt, key: UInt64) {
            self.parent = parent
            self.key = key
        }

        /// Takes the invitation out of the environment: programs that this one starts are not invited.
        static func take() -> Invitation? {
            guard let text = unsafe getenv(Self.name).map({ unsafe String(cString: $0) }) else { return nil }
            unsafe unsetenv(Self.name)
            let parts = text.split(separator: ":")
            // What can't be read invites all the same: a child must never listen where its parent does.
            guard parts.count == 2, let parent = CInt(parts[0]), let key = UInt64(parts[1]) else {
                return Invitation(parent: 0, key: 0)
            }
            return Invitation(parent: parent, key: key)
        }
    }

    private static let invitation = Invitation.take()
    private static let isTaken = Atomic(false)

    static var isCurrent: Bool { Self.invitation != nil }

    private let functions: [IsolatedFunction]
    private let limits: CodecLimits
    private let link: ByteLink

    private init(functions: [IsolatedFunction], limits: CodecLimits, link: ByteLink) {
        self.functions = functions
        self.limits = limits
        self.link = link
    }

    /// Serves for ever, if this process was started for that and by such a worker.
    ///
    /// For another worker of the same program it only sees to it that the process ends with its parent.
    static func serve(_ handlers: [String: Handler], _ configuration: WorkerConfiguration) {
        let functions = IsolationPool.ordered(handlers)
        guard let invitation, IsolationPool.key(of: functions) == invitation.key,
            !Self.isTaken.exchange(true, ordering: .acquiringAndReleasing)
        else { return }
        guard let link = ByteLink(adopting: ByteLink.inherited) else { ChildSide.killOwnSession() }
        let limits = CodecLimits(maxBytes: configuration.maxPayloadBytes)
        let server = ChildServer(functions: functions, limits: limits, link: link)
        do {
            _ = try LoopThread.start(named: "drover-parent") {
                if ChildSide.dieWithParent(invitation.parent) { link.waitForEnd() }
                ChildSide.killOwnSession()
            }
            _ = try LoopThread.start(named: "drover-handler") {
                ChildSide.unblockSignals()
                // A failure is the parent's end, which the other thread sees as well.
                try? server.run()
            }
        } catch {
            ChildSide.killOwnSession()
        }
    }

    /// Blocks this thread for ever: a child has no business beyond where its worker starts.
    @available(*, noasync)
    static func park() -> Never {
        while true { pause() }
    }

    /// Suspends this task for ever.
    static func suspend() async -> Never {
        while true { await unsafe withUnsafeContinuation { (_: UnsafeContinuation<Void, Never>) in } }
    }

    private func run() throws(ByteLink.Failure) {
        var worker = ""
        while true {
            let frame = try ChildFrame(from: self.link, until: nil)
            let payload = try frame.readPayload(from: self.link, until: nil)
            switch frame.kind {
            case .begin:
                worker = String(decoding: payload, as: UTF8.self)
                try self.send(.ready, RequestBytes())
            case .call:
                guard Int(frame.function) < self.functions.count else { throw .ended }
                let reply = self.reply(to: self.functions[Int(frame.function)], payload, worker: worker)
                // What handlers print is buffered, and a child is killed in the end.
                fflush(nil)
                switch reply {
                case .value(let block): try self.send(.value, block)
                case .error(let body): try self.send(.error, body.packed())
                case .dropped: throw .ended
                }
            case .ready, .value, .error: throw .ended
            }
        }
    }

    private func send(_ kind: ChildFrame.Kind, _ block: RequestBytes) throws(ByteLink.Failure) {
        var block = block
        defer { block.free() }
        let start = unsafe block.base.map { unsafe UnsafeRawPointer($0 + RequestBytes.headerByteCount) }
        let payload = unsafe UnsafeRawBufferPointer(start: start, count: block.payloadCount)
        try unsafe ChildFrame(kind).write(to: self.link, payload, until: nil)
    }

    private func reply(to function: IsolatedFunction, _ arguments: [UInt8], worker: String) -> WorkerReply {
        var writer = self.writer()
        do {
            let work: AsyncWork? = try withPackReader(over: arguments, limits: self.limits) { reader in
                switch function.body {
                case .sync(let body):
                    try body(&reader, &writer)
                    return nil
                case .async(let body): return try body(&reader)
                }
            }
            guard let work else { return .value(RequestBytes(adopting: writer.finish())) }
            return self.reply(of: work, function, worker)
        } catch {
            return .error(WorkerCore.errorBody(error, function: function.name, worker: worker))
        }
    }

    private func reply(of work: @escaping AsyncWork, _ function: IsolatedFunction, _ worker: String) -> WorkerReply {
        let reply = ReadySignal<WorkerReply>()
        Task(executorPreference: TaskThreads.shared) {
            var writer = self.writer()
            do {
                let pack = try await work()
                do throws(CodecError) { try pack(&writer) } catch { throw ResultError(cause: error) }
                reply.set(.value(RequestBytes(adopting: writer.finish())))
            } catch {
                reply.set(.error(WorkerCore.errorBody(error, function: function.name, worker: worker)))
            }
        }
        return reply.wait()
    }

    private func writer() -> PackWriter {
        PackWriter(capacity: 256, headerBytes: RequestBytes.headerByteCount, limits: self.limits)
    }
}
