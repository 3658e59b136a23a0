// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation

/// What people really send: structures of structures.
struct Order: Codable, Equatable, Sendable {
    struct Line: Codable, Equatable, Sendable {
        var article: String
        var count: Int
        var price: Double
    }

    var number: Int
    var customer: String
    var email: String
    var isPaid: Bool
    var total: Double
    var lines: [Line]
    var notes: [String: String]

    static let example = Order(
        number: 123_456,
        customer: "Ada Lovelace",
        email: "ada@example.org",
        isPaid: true,
        total: 149.25,
        lines: (0..<5)
            .map { index in Line(article: "article-\(index)", count: index + 1, price: 9.95 * Double(index + 1)) },
        notes: ["gift": "yes", "colour": "green"]
    )
}

struct Point: Codable, Equatable, Sendable {
    var x: Double
    var y: Double

    static let examples = (0..<1000).map { index in Point(x: Double(index) * 0.5, y: Double(index) * 0.25) }
}

/// What a structure costs in writing and reading it, by plain `Codable`, beside Python's msgpack and its dictionaries.
///
/// In processor time, as both sides do nothing but compute.
enum StructRole {
    private static let orders = Workload.codecOrders
    private static let pointArrays = Workload.codecPointArrays

    static let order = Side.value("Drover") { try nanoseconds(Order.example, orders) }
    static let points = Side.value("Drover") { try nanoseconds(Point.examples, pointArrays) }

    static let pythonOrder = python("order", orders)
    static let pythonPoints = python("points", pointArrays)

    /// Writing and reading of one value.
    private static func nanoseconds<Value: Codable & Equatable & Sendable>(
        _ value: Value,
        _ count: Int
    ) throws -> Double {
        let pack = valuePacker(of: Value.self)
        let unpack = valueUnpacker(of: Value.self)
        func packed() throws -> [UInt8] {
            var writer = PackWriter(capacity: 512)
            try pack(value, &writer)
            return writer.withBytes { bytes in [UInt8](bytes) }
        }
        let bytes = try packed()
        let read = try withPackReader(over: bytes) { reader in try unpack(&reader) }
        guard read == value else { throw Failure("what was read is not what was written") }
        func run(_ count: Int) throws {
            for _ in 0..<count {
                var writer = PackWriter(capacity: 512)
                try pack(value, &writer)
                let block = writer.finish()
                guard block.count == bytes.count else { throw Failure("the bytes are not the same each time") }
            }
            for _ in 0..<count { _ = try withPackReader(over: bytes) { reader in try unpack(&reader) } }
        }
        try run(count / 10)
        let started = Self.processorTime()
        try run(count)
        return Double(Self.processorTime() - started) / Double(count)
    }

    private static func processorTime() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private static func python(_ value: String, _ count: Int) -> Side {
        Side("msgpack for Python") {
            let script = Repository.root.appending(path: "Tests/Benchmarks/msgpack_baseline.py").path
            let child = try Child(Command(RPyCBaseline.python, [script, value, "\(count)"]))
            guard let figure = try child.words()["ns"].flatMap({ Double($0) }) else {
                throw Failure("the script printed no figure")
            }
            _ = try child.finish()
            return Measurement(figure)
        }
    }
}

/// Calls whose argument and result are an order.
enum OrderCalls {
    static let repeated = Function<Order, Order>("order")

    private static let arguments = [Workload.orderCalls, Workload.window]

    static let drover = DroverRows.pair(client: "order-calls", arguments, key: "calls_per_s")

    /// The same rows of an earlier build, to see what changed: `BEFORE` names its `Benchmarks`.
    static let earlier: Side? = ProcessInfo.processInfo.environment["BEFORE"]
        .flatMap { path in
            path.isEmpty
                ? nil
                : DroverRows.pair(
                    "Drover before",
                    executable: path,
                    client: "order-calls",
                    arguments,
                    key: "calls_per_s"
                )
        }

    /// Keeps a window of calls outstanding and takes their results in the order of the calls.
    static let role = Role.blocking { arguments in
        let client = try DroverRoles.client(arguments)
        let count = try DroverRoles.number(arguments, 1)
        let window = try DroverRoles.number(arguments, 2)
        let order = client.function(Self.repeated)
        func run(_ count: Int) throws {
            var results: [AsyncResult<Order>] = []
            results.reserveCapacity(window)
            for index in 0..<count {
                if index < window {
                    results.append(try order.async(.example))
                } else {
                    guard try results[index % window].get() == .example else { throw Failure("another order came") }
                    results[index % window] = try order.async(.example)
                }
            }
            for result in results { _ = try result.get() }
        }
        try run(max(window, count / 10))
        let started = DroverRoles.now()
        try run(count)
        let seconds = Double(DroverRoles.now() - started) / 1e9
        Console.write("role=order-calls calls=\(count) calls_per_s=\(Double(count) / seconds)")
        client.closeBlocking()
    }
}
