// SPDX-License-Identifier: Apache-2.0
import Drover
import Foundation

/// What the monitor looks at.
struct FileStat: Codable, Equatable, Sendable {
    var size: Int64
    var modifiedNanoseconds: Int64

    /// The state of a file; nil if there is none.
    init?(of path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.size = Int64(status.st_size)
        self.modifiedNanoseconds = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }
}

/// The client's closure, as the worker sees it: it takes the old and the new state.
typealias Changed = Callback<FileStat?, FileStat?, Nothing>

extension Function {
    /// Watches a file until the call is cancelled; tells `changed` of each change.
    static var watch: Function<String, Changed, Nothing> { .init("watch") }
}

@main
struct Events {
    static func main() async throws {
        let running = try startWorker()
        let client = try Client(running.endpoint)
        let path = NSTemporaryDirectory() + "drover-events-\(getpid()).txt"
        defer { try? FileManager.default.removeItem(atPath: path) }

        // Runs on the client's callback thread, one event at a time, in order.
        let (changes, feed) = AsyncStream<Void>.makeStream()
        let changed = client.callback { (old: FileStat?, new: FileStat?) in
            print("changed: \(text(old)) -> \(text(new))")
            feed.yield()
        }

        // The call ends when we cancel it; until then the program does other things.
        let watching = try client.function(.watch).async(path, changed)
        var seen = changes.makeAsyncIterator()
        await seen.next()  // the first event tells the state at the start
        for line in ["one\n", "two, a longer line\n"] {
            try append(line, to: path)
            await seen.next()
        }
        try FileManager.default.removeItem(atPath: path)
        await seen.next()

        watching.cancel()
        print("watching:", watching.outcome.map { "\($0)" } ?? "pending")
        await client.close()
        await running.stop()
    }

    /// A worker in this process; it could as well be on another host.
    private static func startWorker() throws -> RunningWorker {
        let worker = Worker(concurrency: 2)
        worker.register(.watch) { (context: JobContext, path: String, changed: Changed) async throws -> Nothing in
            var known = FileStat(of: path)
            try await changed.emit(known, known)
            while !context.isCancelled {
                try await Task.sleep(for: .milliseconds(20))
                let current = FileStat(of: path)
                if current != known {
                    try await changed.emit(known, current)
                    known = current
                }
            }
            throw CancellationError()
        }
        return try worker.start(.bind("tcp://127.0.0.1:*"))
    }

    private static func append(_ line: String, to path: String) throws {
        if !FileManager.default.fileExists(atPath: path) {
            // Made whole and then moved, so that the monitor never sees it empty.
            try Data(line.utf8).write(to: URL(filePath: path), options: .atomic)
            return
        }
        let file = try FileHandle(forWritingTo: URL(filePath: path))
        defer { try? file.close() }
        try file.seekToEnd()
        try file.write(contentsOf: Data(line.utf8))
    }

    private static func text(_ state: FileStat?) -> String { state.map { "\($0.size) bytes" } ?? "no file" }
}
