// SPDX-License-Identifier: Apache-2.0

import Dispatch
import DroverZMQ
import Foundation
import Synchronization
import Testing

/// Looks every millisecond whether something has become true; records an issue if it hasn't within the limit.
@discardableResult
func eventually(
    _ what: String,
    within limit: Duration = .seconds(10),
    sourceLocation: SourceLocation = #_sourceLocation,
    _ isTrue: () throws -> Bool
) rethrows -> Bool {
    let deadline = MonotonicClock.deadline(after: limit)
    while try !isTrue() {
        guard MonotonicClock.now() < deadline else {
            Issue.record("within \(limit) it did not come true that \(what)", sourceLocation: sourceLocation)
            return false
        }
        usleep(1000)
    }
    return true
}

/// How long `body` takes.
func elapsed(_ body: () throws -> Void) rethrows -> Duration {
    let started = MonotonicClock.now()
    try body()
    return .nanoseconds(Int64(MonotonicClock.now() - started))
}

/// How long `body` takes.
func elapsed(_ body: () async throws -> Void) async rethrows -> Duration {
    let clock = ContinuousClock()
    let started = clock.now
    try await body()
    return clock.now - started
}

/// Blocks this thread: the program does something else for a while.
func block(for duration: Duration) {
    let (seconds, attoseconds) = duration.components
    usleep(UInt32(seconds * 1_000_000 + attoseconds / 1_000_000_000_000))
}

/// Runs `body` on several threads at once and waits for all of them.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
    let threads = try (0..<count).map { index in try LoopThread.start(named: "test-\(index)") { body(index) } }
    for thread in threads { thread.join() }
}

/// Sees that the threads end.
func expectEnd(of threads: [LoopThread], sourceLocation: SourceLocation = #_sourceLocation) {
    for thread in threads { #expect(thread.join(within: .seconds(5)), sourceLocation: sourceLocation) }
}

/// Gathers values from any thread.
final class Gathered<Value: Sendable>: Sendable {
    private let state = Mutex<[Value]>([])

    var values: [Value] { self.state.withLock { $0 } }
    var count: Int { self.state.withLock { $0.count } }

    func add(_ value: Value) { self.state.withLock { $0.append(value) } }
    func removeAll() { self.state.withLock { $0 = [] } }
}

extension Gathered<Int> {
    /// Whether the values count up from zero; says less than a comparison, which shows thousands of numbers.
    func isCounting(to count: Int) -> Bool { self.values == Array(0..<count) }
}

/// Something whose end can be seen.
final class Witness: Sendable {}

/// Sees whether a witness is still held.
final class WeakWitness: Sendable {
    private struct Reference: Sendable { weak var witness: Witness? }
    private let reference: Mutex<Reference>

    init(_ witness: Witness) { self.reference = Mutex(Reference(witness: witness)) }

    var isGone: Bool { self.reference.withLock { $0.witness == nil } }
}

/// What this process has of memory, descriptors and threads.
struct Footprint: CustomStringConvertible {
    let residentBytes: Int
    let descriptors: Int
    let threads: Int

    static var now: Footprint {
        let statm = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        let pages = statm.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        return Footprint(
            residentBytes: pages * 4096,
            descriptors: (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0,
            threads: (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count) ?? 0
        )
    }

    var description: String {
        "\(self.residentBytes >> 20) MiB, \(self.descriptors) descriptors, \(self.threads) threads"
    }
}

/// A number from the environment.
func setting(_ name: String, _ usual: Int) -> Int {
    ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? usual
}

/// Whether ThreadSanitizer or AddressSanitizer slows everything down.
var isSanitized: Bool {
    ["DROVER_SANITIZED", "TSAN_OPTIONS", "ASAN_OPTIONS"].contains { ProcessInfo.processInfo.environment[$0] != nil }
}

/// The number under which the kernel knows this thread.
func kernelThreadID() -> Int {
    let path = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self")) ?? ""
    return path.split(separator: "/").last.flatMap { Int($0) } ?? 0
}
