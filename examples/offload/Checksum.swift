// SPDX-License-Identifier: Apache-2.0
import Drover
import DroverBroker
import Foundation
import Logging

/// What a worker says of a file.
struct Digest: Codable, Sendable {
    /// The SHA-256, in hexadecimal.
    var hex: String
    var bytes: Int
    /// The process that hashed it, to show how the work was spread.
    var worker: Int32
}

/// A file that can't be read; `Codable`, so that the client gets it back as it was thrown.
struct FileError: Error, Codable, CustomStringConvertible {
    var description: String

    /// The C library's last error, on that file.
    init(errno code: Int32, _ path: String) { self.description = "\(path): \(String(cString: strerror(code)))" }
}

extension Function {
    /// Reading a file again harms nobody, so calls survive the death of a worker.
    static var checksum: Function<String, Digest> { .init("checksum", isIdempotent: true) }
}

/// What both roles share: the handler's work.
func checksum(of path: String) throws -> Digest {
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else { throw FileError(errno: errno, path) }
    defer { close(file) }
    var hash = SHA256()
    var total = 0
    try withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 16) { buffer in
        while true {
            let count = read(file, buffer.baseAddress, buffer.count)
            if count == 0 { return }
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(errno: errno, path)
            }
            hash.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            total += count
        }
    }
    return Digest(hex: hash.finish(), bytes: total, worker: getpid())
}

/// The role of a worker: listens or dials a broker, prints where, and runs until its standard input ends.
///
/// So it can't outlive the process that started it, whatever happens to that one.
func runWorker(at endpoint: WorkerEndpoint) throws {
    guard SHA256.isCorrect else { throw Failure("this build's SHA-256 is wrong") }
    var configuration = WorkerConfiguration()
    configuration.name = "worker-\(getpid())"
    configuration.heartbeatInterval = .milliseconds(500)
    configuration.silenceLimit = .seconds(2)
    let worker = Worker(concurrency: 2, configuration: configuration)
    worker.register(.checksum) { path in try checksum(of: path) }
    let running = try worker.start(endpoint)
    say(endpoint.brokers.first ?? running.endpoint)
    while readLine() != nil {}
    running.stopBlocking(grace: .seconds(1))
}

/// The role of a broker, in the same manner.
func runBroker(at address: String) throws {
    var configuration = BrokerConfiguration()
    configuration.heartbeatInterval = .milliseconds(500)
    configuration.silenceLimit = .seconds(2)
    configuration.logger.logLevel = .error
    let running = try Broker(configuration: configuration).start(address)
    say(running.endpoint)
    while readLine() != nil {}
    running.stopBlocking(grace: .seconds(1))
}

/// Why the program gives up.
struct Failure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// Writes a line to standard output at once, also into a pipe.
func say(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }
