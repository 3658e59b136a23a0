// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation

/// What isolated handlers throw.
struct IsolatedError: Error, Codable {
    let reason: String
}

extension Function {
    static var decodeImage: Function<[UInt8], [UInt8]> { .init("isolatedBytes") }
    static var render: Function<String, [UInt8]> { .init("isolatedRender") }
}

/// Stands for a library in C that nobody trusts.
private func decode(_ bytes: [UInt8]) throws -> [UInt8] { bytes }

/// Stands for work that takes long, and asks after each step whether to go on.
private func render(_ path: String, _ goesOn: () throws -> Void) throws -> [UInt8] {
    for _ in path.utf8 { try goesOn() }
    return Array(path.utf8)
}

/// The functions that run in child processes of the worker.
func registerIsolated(on worker: Worker) {
    worker.register(Function<Int32>("isolatedPid"), isolation: .process) { getpid() }
    worker.register(.decodeImage, isolation: .process) { bytes in try decode(bytes) }
    worker.register(Function<Double, String, String>("isolatedSleep"), isolation: .process) { (seconds, tag) in
        usleep(UInt32(seconds * 1_000_000))
        return tag
    }
    worker.register(Function<Double, Int32>("isolatedAsync"), isolation: .process) { (seconds: Double) async throws in
        try await Task.sleep(for: .seconds(seconds))
        return getpid()
    }
    worker.register(Function<String, Nothing>("isolatedFail"), isolation: .process) { (reason: String) in
        throw IsolatedError(reason: reason)
    }
    worker.register(Function<String, Nothing>("isolatedCrash"), isolation: .process, crash)
    worker.register(Function<String, Nothing>("isolatedSureCrash", isIdempotent: true), isolation: .process, crash)
    worker.register(Function<String, Nothing>("isolatedFamily"), isolation: .process, raiseFamily)
    worker.register(Function<String, Nothing>("isolatedForge"), isolation: .process, forgeFrame)
    let limits = TimeLimits(hard: .seconds(2))
    worker.register(Function<String, Nothing>("isolatedHard"), timeLimits: limits, isolation: .process, raiseFamily)
    let soft = TimeLimits(soft: .seconds(2))
    worker.register(Function<String, Nothing>("isolatedSoft"), timeLimits: soft, isolation: .process, raiseFamily)
    let both = TimeLimits(soft: .milliseconds(1700), hard: .seconds(2))
    worker.register(Function<String, Nothing>("isolatedBoth"), timeLimits: both, isolation: .process, raiseFamily)
    worker.register(.render, timeLimits: TimeLimits(soft: .seconds(50), hard: .seconds(60))) { context, path in
        try render(path) { try context.checkCancellation() }
    }
    worker.register(Function<[String]>("isolatedDescriptors"), isolation: .process) {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
            .map { name in
                let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")
                return "\(name) \(target ?? "")"
            }
    }
    worker.register(Function<Int, Int>("isolatedReply"), isolation: .worker) { (number: Int) in number }
}

/// Writes to the parent worker, past Drover, what code that has taken a child over might.
///
/// The head of a frame: an error or a value of almost 4 GiB.
@Sendable
private func forgeFrame(_ kind: String) {
    let words: [UInt32] = [kind == "error" ? 5 : 4, 0, 4_294_967_000]
    for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? [] {
        // The link is the one socket that a child has.
        guard let descriptor = Int32(name) else { continue }
        _ = words.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }
    sleep(20)
}

/// Ends this process in one of several ways.
@Sendable
private func crash(_ way: String) {
    switch way {
    case "segv": UnsafeMutablePointer<Int>(bitPattern: 8)?.pointee = 1
    case "abort": abort()
    case "trap": preconditionFailure("as asked")
    case "exit":
        // What a handler holds when it exits is no leak, but a search for leaks would say so and change the status.
        if getenv("ASAN_OPTIONS") != nil { _exit(3) }
        exit(3)
    default: kill(getpid(), SIGKILL)
    }
}

/// Writes its pid and that of a child of its own to a file, and goes on for ever.
///
/// The child ignores SIGTERM if the path ends in `stubborn`.
@Sendable
private func raiseFamily(_ path: String) throws {
    let child = Process()
    child.executableURL = URL(fileURLWithPath: "/bin/sh")
    let trap = path.hasSuffix("stubborn") ? "trap '' TERM; " : ""
    child.arguments = ["-c", "\(trap)while :; do sleep 0.1; done"]
    try child.run()
    try "\(getpid()) \(child.processIdentifier)".write(toFile: path, atomically: true, encoding: .utf8)
    while true { sleep(1) }
}
