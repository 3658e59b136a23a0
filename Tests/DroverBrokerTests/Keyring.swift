// SPDX-License-Identifier: Apache-2.0

import Drover
import DroverBroker
import DroverZMQ
import Foundation
import Logging
import Synchronization

/// The keys of a test: a broker's, its allow-list, and those of whoever comes.
final class Keyring: Sendable {
    let folder: URL
    let broker: KeyPair
    let worker: KeyPair
    private let lines = Mutex<[String]>([])
    let log = CapturedLog()

    var allowList: String { self.folder.appending(path: "allow").path }

    init() throws {
        self.folder = URL(filePath: NSTemporaryDirectory()).appending(path: "drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: self.folder, withIntermediateDirectories: true)
        self.broker = try KeyPair()
        self.worker = try KeyPair()
        try self.allow(self.worker, "pool work")
    }

    deinit { try? FileManager.default.removeItem(at: self.folder) }

    /// Allows a key; `grant` is the principal, the rights and perhaps queues.
    func allow(_ keys: KeyPair, _ grant: String) throws { try self.allow(keys.publicKey.text, grant) }

    func allow(_ key: String, _ grant: String) throws {
        let words = grant.split(separator: " ").map { String($0) }
        let line = ([words[0], key] + words.dropFirst()).joined(separator: " ")
        try self.lines.withLock { lines in
            lines.removeAll { $0.contains(key) }
            lines.append(line)
            try self.write(lines.joined(separator: "\n"))
        }
    }

    func revoke(_ keys: KeyPair) throws {
        try self.lines.withLock { lines in
            lines.removeAll { $0.contains(keys.publicKey.text) }
            try self.write(lines.joined(separator: "\n"))
        }
    }

    func write(_ text: String) throws {
        try Data(text.utf8).write(to: URL(filePath: self.allowList), options: .atomic)
    }

    func connection(_ keys: KeyPair) -> ConnectionKeys { ConnectionKeys(own: keys, server: self.broker.publicKey) }

    /// A broker that asks for keys, with workers that have an allowed one.
    func pool(workers: Int = 1, _ change: (inout BrokerConfiguration) -> Void = { _ in }) throws -> Pool {
        let pool = try Pool(workers: 0) {
            $0.keys = ListenerKeys(own: self.broker, allowList: self.allowList)
            $0.logger = self.log.logger
            change(&$0)
        }
        for number in 0..<workers {
            try pool.addWorker("worker \(number)") { $0.keys = self.connection(self.worker) }
        }
        return pool
    }
}

/// Keeps what was logged.
final class CapturedLog: Sendable {
    private let kept = Mutex<[String]>([])

    var lines: [String] { self.kept.withLock { $0 } }

    /// Whether one line has all the parts.
    func has(_ parts: String...) -> Bool { self.lines.contains { line in parts.allSatisfy { line.contains($0) } } }

    var logger: Logger {
        var logger = Logger(label: "captured") { _ in Handler(log: self) }
        logger.logLevel = .debug
        return logger
    }

    private struct Handler: LogHandler {
        let log: CapturedLog
        var logLevel = Logger.Level.debug
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            let line = "\(event.level) \(event.message) \(details.joined(separator: " "))"
            self.log.kept.withLock { $0.append(line) }
        }
    }
}

/// A peer that does as it likes with its own connection.
struct RawClient: ~Copyable {
    private let context: Context
    private let socket: Socket
    /// What came in one frame with the message that was asked for.
    private var left: [UInt8] = []

    init(_ endpoint: String, _ keys: ConnectionKeys, routingID: String) throws {
        let context = try Context()
        let socket = try Socket(.dealer, in: context)
        try socket.connectEncrypted(keys, to: endpoint)
        try socket.set(.routingID, Array(routingID.utf8))
        try socket.connect(endpoint)
        self.context = context
        self.socket = socket
    }

    /// One without keys.
    init(_ endpoint: String) throws {
        let context = try Context()
        let socket = try Socket(.dealer, in: context)
        try socket.connect(endpoint)
        self.context = context
        self.socket = socket
    }

    /// A HELLO of the client whose identity is sixteen times this number.
    static func hello(identity: UInt8, epoch: UInt8 = 9) -> [UInt8] {
        let payload: [UInt8] =
            [0x81, 0xA6] + Array("client".utf8) + [0xC4, 0x10] + [UInt8](repeating: identity, count: 16)
        return Self.header(kind: 1, id: epoch, count: UInt8(payload.count)) + payload
    }

    static func header(kind: UInt8, id: UInt8 = 0, count: UInt8 = 0, time: UInt32 = 0) -> [UInt8] {
        let time = (0..<4).map { UInt8(truncatingIfNeeded: time >> ($0 * 8)) }
        return [0xD1, kind, 0, 0, count, 0, 0, 0, id] + [UInt8](repeating: 0, count: 7) + time + [0, 0, 0, 0]
    }

    func send(_ bytes: [UInt8]) throws {
        var message = Message(copying: bytes)
        _ = try self.socket.send(&message)
    }

    /// The kind of the next message that comes within ten seconds and isn't a beat; nil if none does.
    mutating func nextKind() throws -> UInt8? {
        var message = Message()
        for _ in 0..<10_000 {
            while self.left.count >= 24 {
                let kind = self.left[1]
                let count = (0..<4).reduce(0) { $0 | Int(self.left[4 + $1]) << (8 * $1) }
                self.left.removeFirst(min(self.left.count, 24 + count))
                if kind != 5 { return kind }
            }
            if try self.socket.receive(into: &message) { self.left = message.bytes } else { usleep(1000) }
        }
        return nil
    }
}
