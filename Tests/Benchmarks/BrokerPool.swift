// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A broker, workers that serve it, and a client that measures through it.
struct BrokerPool: Sendable {
    /// How a broker says where it is.
    enum Start: Sendable {
        /// It prints its address, alone or as `endpoint=...`, and `workers=...` if workers go elsewhere.
        case announces(Command)
        /// It is told its port and prints nothing of use.
        case listens(@Sendable (_ port: UInt16) -> Command)
    }

    /// Where a broker that has started can be reached.
    struct Address: Sendable {
        var clients: String
        var workers: String
        /// The broker's process.
        var pid: pid_t
    }

    var broker: Start
    /// Prints a line once it serves, and ends on SIGTERM.
    var worker: @Sendable (Address) -> Command
    var workerCount = 2
    /// Measures, prints one line of words and ends.
    var client: @Sendable (Address) -> Command

    /// What a run came to: the client's words, and what each part used of the processors.
    struct Run {
        var words: [String: String]
        /// The broker's, from before the client began until after it ended.
        var brokerCpuSeconds: Double
        var cpuSeconds: Double

        func figure(_ key: String) throws -> Double {
            guard let value = self.words[key].flatMap({ Double($0) }) else {
                throw Failure("the client printed no '\(key)'")
            }
            return value
        }
    }

    func run() throws -> Run {
        try self.withWorkers { broker, address, workers in
            let before = try broker.cpuSeconds()
            let client = try Child(self.client(address))
            let words = try client.words()
            let brokerCpuSeconds = try broker.cpuSeconds() - before
            let cpuSeconds = try client.finish() + workers.reduce(broker.end()) { $0 + $1.end() }
            return Run(words: words, brokerCpuSeconds: brokerCpuSeconds, cpuSeconds: cpuSeconds)
        }
    }

    /// The broker with its workers and without clients: what it uses of a core, in percent, and of memory.
    func idle() throws -> Measurement {
        try self.withWorkers { broker, _, _ in
            // What starting has left to do isn't idling.
            Thread.sleep(forTimeInterval: 3)
            let started = ContinuousClock.now
            let before = try broker.cpuSeconds()
            Thread.sleep(forTimeInterval: Workload.idleSeconds)
            let used = try broker.cpuSeconds() - before
            let elapsed = (ContinuousClock.now - started) / .seconds(1)
            let mebibytes = Double(try DroverRoles.residentBytes(of: broker.pid)) / 1_048_576
            return Measurement(used / elapsed * 100, cpuSeconds: used, mebibytes: mebibytes)
        }
    }

    /// The processes end with the body, whatever it comes to.
    private func withWorkers<Result>(
        _ body: (_ broker: Child, _ address: Address, _ workers: [Child]) throws -> Result
    ) throws -> Result {
        let (broker, address) = try self.startBroker()
        let workers = try (0..<self.workerCount).map { _ in try Child(self.worker(address)) }
        for worker in workers { _ = try worker.words(within: 60) }
        return try withExtendedLifetime((broker, workers)) { try body(broker, address, workers) }
    }

    private func startBroker() throws -> (Child, Address) {
        switch self.broker {
        case .announces(let command):
            let broker = try Child(command)
            let line = try broker.line(within: 30)
            let words = Child.words(in: line)
            let clients = words["endpoint"] ?? line
            return (broker, Address(clients: clients, workers: words["workers"] ?? clients, pid: broker.pid))
        case .listens(let command):
            let port = try Loopback.freePort()
            let broker = try Child(command(port))
            try Loopback.waitForListener(at: port)
            return (broker, Address(clients: "\(port)", workers: "\(port)", pid: broker.pid))
        }
    }
}

/// Ports of this machine, for servers that don't choose one themselves.
enum Loopback {
    /// A port that nobody listened at just now.
    static func freePort() throws -> UInt16 {
        try self.withSocket { descriptor in
            var address = self.address(port: 0)
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let error = withUnsafeMutableBytes(of: &address) { bytes -> CInt in
                guard let pointer = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress else { return -1 }
                return bind(descriptor, pointer, length) == 0 ? getsockname(descriptor, pointer, &length) : -1
            }
            guard error == 0 else { throw Failure("no port is free: \(String(cString: strerror(errno)))") }
            return UInt16(bigEndian: address.sin_port)
        }
    }

    static func waitForListener(at port: UInt16, within seconds: Double = 15) throws {
        let deadline = ContinuousClock.now + .seconds(seconds)
        repeat {
            let isThere = try self.withSocket { descriptor in
                var address = self.address(port: port)
                return withUnsafeBytes(of: &address) { bytes in
                    guard let pointer = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress else { return false }
                    return connect(descriptor, pointer, socklen_t(bytes.count)) == 0
                }
            }
            if isThere { return }
            usleep(20_000)
        } while ContinuousClock.now < deadline
        throw Failure("nobody listens at port \(port)")
    }

    private static func withSocket<Result>(_ body: (CInt) throws -> Result) throws -> Result {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw Failure("no socket: \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        return try body(descriptor)
    }

    private static func address(port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        return address
    }
}
