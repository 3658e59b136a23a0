// SPDX-License-Identifier: Apache-2.0

import DroverWire
import DroverZMQ
import Synchronization
import Testing

/// A test program's side of a connection that speaks the wire by hand: a socket on a thread of its own, an inbox, an
/// outbox.
final class RawPeer: Sendable {
    /// A message as ZeroMQ has it; for a ROUTER the first frame is the route.
    typealias Frames = [[UInt8]]

    private struct State: Sendable {
        var outbox: [Frames] = []
        var inbox: [Frames] = []
        var taken = 0
        var isStopping = false
    }

    private let state = Mutex(State())
    private let waker: Waker
    private let address: ReadySignal<String>
    private let thread: Mutex<LoopThread?>

    /// Where it listens.
    var endpoint: String { self.address.wait() }

    /// Starts a peer; `react` says what to send for a message that came, on the peer's thread, and is called every 20 ms
    /// with nil.
    init(
        _ kind: SocketKind,
        bind: String? = nil,
        connect: String? = nil,
        keeps: Bool = true,
        react: @escaping @Sendable (Frames?) -> [Frames] = { _ in [] }
    ) throws {
        let waker = try Waker()
        let address = ReadySignal<String>()
        self.waker = waker
        self.address = address
        self.thread = Mutex(nil)
        let context = try Context()
        let thread = try LoopThread.start(named: "raw-peer") { [weak self] in
            do {
                let socket = try Socket(kind, in: context)
                try socket.set(.linger, .milliseconds(200))
                // A ROUTER drops what is over its limit.
                try socket.set(.sendHighWaterMark, 1_000_000)
                try socket.set(.receiveHighWaterMark, 1_000_000)
                if let bind {
                    try socket.bind(bind)
                    _ = address.set(try socket.lastEndpoint)
                }
                if let connect {
                    try socket.connect(connect)
                    _ = address.set(connect)
                }
                try Self.serve(socket, waker: waker, keeps: keeps, react: react) { self?.takeOutbox($0) }
            } catch {
                Issue.record("a raw peer failed: \(error)")
                _ = address.set("")
            }
        }
        self.thread.withLock { $0 = thread }
    }

    /// Ends the thread and closes the socket.
    func stop() {
        self.state.withLock { $0.isStopping = true }
        self.waker.wake()
        self.thread.withLock { $0 }?.join()
    }

    deinit {
        self.state.withLock { $0.isStopping = true }
        self.waker.wake()
    }

    /// Sends a message soon.
    func send(_ frames: Frames) {
        self.state.withLock { $0.outbox.append(frames) }
        self.waker.wake()
    }

    /// All that came so far.
    var received: [Frames] { self.state.withLock { $0.inbox } }

    /// The outbox, after taking in what came; nil to stop.
    private func takeOutbox(_ came: [Frames]) -> [Frames]? {
        self.state.withLock { state in
            state.inbox += came
            if state.isStopping, state.outbox.isEmpty { return nil }
            defer { state.outbox = [] }
            return state.outbox
        }
    }

    private static func serve(
        _ socket: borrowing Socket,
        waker: Waker,
        keeps: Bool,
        react: (Frames?) -> [Frames],
        exchange: ([Frames]) -> [Frames]?
    ) throws {
        var poll = PollSet()
        var frame = Message()
        while true {
            _ = waker.drain()
            var came: [Frames] = []
            var answers: [Frames] = react(nil)
            for _ in 0..<256 {
                var frames: Frames = []
                while try socket.receive(into: &frame) {
                    frames.append(frame.bytes)
                    if !frame.hasMore { break }
                }
                if frames.isEmpty { break }
                if keeps { came.append(frames) }
                answers += react(frames)
            }
            guard let outbox = exchange(came) else { return }
            for frames in answers + outbox { try Self.send(frames, by: socket) }
            poll.removeAll()
            _ = poll.add(socket)
            _ = poll.add(fileDescriptor: waker.fileDescriptor)
            _ = try poll.wait(milliseconds: 20)
        }
    }

    private static func send(_ frames: Frames, by socket: borrowing Socket) throws {
        for (index, bytes) in frames.enumerated() {
            var message = Message(copying: bytes)
            var tries = 0
            while try !socket.send(&message, more: index + 1 < frames.count) {
                // A peer that isn't there yet, or has no room.
                tries += 1
                if tries > 2000 { return }
                var poll = PollSet()
                _ = poll.add(socket, for: .writable)
                _ = try poll.wait(milliseconds: 1)
            }
        }
    }
}

/// A worker that answers as scripted.
final class RawWorker: Sendable {
    struct Settings: Sendable {
        var window = 1024
        var name = "raw"
        var epoch: UInt64 = 77
        var isResumed = false
        /// Whether hellos are answered by a welcome, pings by a pong, and beats are sent.
        var isAlive = true
    }

    private struct State: Sendable {
        var settings: Settings
        var routes: [[UInt8]] = []
        var messages: [RawMessage] = []
        var lastBeat: UInt64 = 0
    }

    private final class Box: Sendable {
        let state: Mutex<State>
        init(_ settings: Settings) { self.state = Mutex(State(settings: settings)) }
    }

    private let box: Box
    private let peer: RawPeer

    var endpoint: String { self.peer.endpoint }

    /// Starts a worker; `script` says what to answer, as one frame, to a message that isn't part of the session's upkeep.
    init(
        _ settings: Settings = Settings(),
        at address: String = "tcp://127.0.0.1:*",
        script: @escaping @Sendable (RawMessage) -> [RawMessage] = { _ in [] }
    ) throws {
        let box = Box(settings)
        self.box = box
        self.peer = try RawPeer(.router, bind: address, keeps: false) { frames in
            guard let frames else { return Self.beat(box) }
            guard let route = frames.first else { return [] }
            return RawMessage.all(in: Array(frames.dropFirst()))
                .compactMap { message in
                    let answer = Self.take(message, from: route, box, script).flatMap { $0.bytes }
                    return answer.isEmpty ? nil : [route, answer]
                }
        }
    }

    func stop() { self.peer.stop() }

    /// Changes how the worker behaves.
    func update(_ change: (inout Settings) -> Void) {
        self.box.state.withLock { change(&$0.settings) }
    }

    /// What clients sent, session upkeep apart.
    var messages: [RawMessage] { self.box.state.withLock { $0.messages } }
    var requests: [RawMessage] { self.messages.filter { $0.kind == .request } }

    /// Sends messages in one frame to every client that introduced itself.
    func send(_ messages: RawMessage...) {
        self.send(frames: [messages.flatMap { $0.bytes }])
    }

    /// Sends frames as they are to every client that introduced itself.
    func send(frames: [[UInt8]]) {
        for route in self.box.state.withLock({ $0.routes }) { self.peer.send([route] + frames) }
    }

    private static func take(
        _ message: RawMessage,
        from route: [UInt8],
        _ box: Box,
        _ script: (RawMessage) -> [RawMessage]
    ) -> [RawMessage] {
        let settings = box.state.withLock { state in
            if message.kind == .hello, !state.routes.contains(route) {
                // A client that comes again and again has a new one each time; those of long ago lead nowhere.
                state.routes = state.routes.suffix(7) + [route]
            }
            switch message.kind {
            case .beat, .ping: break
            default: state.messages.append(message)
            }
            return state.settings
        }
        guard settings.isAlive else { return [] }
        switch message.kind {
        case .hello:
            let payload = Packed.welcome(window: settings.window, isResumed: settings.isResumed, name: settings.name)
            return [RawMessage(.welcome, id: settings.epoch, payload: payload)]
        case .ping: return [RawMessage(.pong, id: message.id, payload: Packed.value(WorkerStatus()))]
        case .beat: return []
        default: return script(message)
        }
    }

    private static func beat(_ box: Box) -> [RawPeer.Frames] {
        let now = MonotonicClock.now()
        return box.state.withLock { state in
            guard state.settings.isAlive, now > state.lastBeat + 50_000_000 else { return [] }
            state.lastBeat = now
            let beat = RawMessage(.beat, id: state.settings.epoch).bytes
            return state.routes.map { [$0, beat] }
        }
    }
}

/// A client that sends what it is told to.
final class RawClient: Sendable {
    let identity: PeerID
    let epoch: UInt64
    private let peer: RawPeer
    private let isIntroduced: Flag

    /// Connects; a client that answers pings is known to have read what came before them.
    init(
        _ endpoint: String,
        identity: PeerID = .random(),
        epoch: UInt64 = .random(in: 1 ... .max),
        answersPings: Bool = false
    ) throws {
        self.identity = identity
        self.epoch = epoch
        let isIntroduced = Flag()
        let lastBeat = Atomic<UInt64>(0)
        self.isIntroduced = isIntroduced
        self.peer = try RawPeer(.dealer, connect: endpoint) { frames in
            if let frames {
                guard answersPings else { return [] }
                return RawMessage.all(in: frames).filter { $0.kind == .ping }
                    .map { [RawMessage(.pong, id: $0.id).bytes] }
            }
            let now = MonotonicClock.now()
            guard isIntroduced.isSet else { return [] }
            guard now > lastBeat.load(ordering: .relaxed) + 100_000_000 else { return [] }
            lastBeat.store(now, ordering: .relaxed)
            return [[RawMessage(.beat, id: epoch).bytes]]
        }
    }

    func stop() { self.peer.stop() }

    func send(_ messages: RawMessage...) { self.peer.send([messages.flatMap { $0.bytes }]) }
    func send(frames: [[UInt8]]) { self.peer.send(frames) }

    /// Introduces itself, with beats from then on, and gives the functions the numbers 0, 1, ...
    func introduce(functions: String..., takesParts: Bool = false) {
        let hello = Packed.hello(client: self.identity, takesParts: takesParts)
        self.send(RawMessage(.hello, id: self.epoch, payload: hello))
        self.isIntroduced.set()
        for (number, name) in functions.enumerated() {
            self.send(RawMessage(.define, number: UInt32(number), payload: Array(name.utf8)))
        }
    }

    func request(_ id: UInt64, function: UInt32 = 0, flags: Header.Flags = [], _ arguments: [UInt8]) {
        self.send(
            RawMessage(
                .request,
                id: id,
                number: function,
                time: Header.noTimeLimit,
                flags: flags,
                payload: arguments
            )
        )
    }

    /// All that came, message by message.
    var messages: [RawMessage] { self.peer.received.flatMap { RawMessage.all(in: $0) } }

    /// The first `count` messages that fit, once they have come.
    func messages(_ count: Int = 1, where fits: (RawMessage) -> Bool) -> [RawMessage] {
        eventually("\(count) messages came") { self.messages.filter(fits).count >= count }
        return Array(self.messages.filter(fits).prefix(count))
    }
}

extension PeerID {
    static func random() -> PeerID { PeerID(high: .random(in: 0 ... .max), low: .random(in: 0 ... .max)) }
}
