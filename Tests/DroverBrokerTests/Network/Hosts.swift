// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Hosts that are network namespaces of this machine: one in the middle, others each on a link of its own to it.
///
/// The test itself stands on the host it runs on, by the link 1. Addresses are from 198.18.0.0/15, which is set aside for
/// tests. What was made is removed when this goes.
final class Hosts {
    struct Failure: Error { let message: String }

    /// The namespace in the middle.
    let middle: String
    private let prefix: String
    private var names: [String] = []
    private let link: String

    /// Why no namespaces can be made here; nil if they can.
    static let obstacle: String? = {
        if getuid() != 0 { return "only root may make network namespaces" }
        for program in ["ip", "nft", "ss", "tc"] where Hosts.path(of: program) == nil {
            return "\(program) is missing: deploy/setup.sh installs it"
        }
        let name = "drover-try-\(getpid())"
        do {
            try Hosts.run("ip", "netns", "add", name)
            defer { _ = try? Hosts.run("ip", "netns", "delete", name) }
            try Hosts.run("ip", "netns", "exec", name, "nft", "add table inet drover")
            return nil
        } catch { return "\(error)" }
    }()

    /// Makes `count` hosts besides the one in the middle and the test's own.
    init(_ count: Int) throws {
        self.prefix = "drover-\(getpid())"
        self.middle = "\(self.prefix)-0"
        self.link = "dr\(getpid())"
        try Self.run("ip", "netns", "add", self.middle)
        self.names.append(self.middle)
        try self.inside(self.middle, "ip", "link", "set", "lo", "up")
        try Self.run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "link1", "netns", self.middle)
        try self.setUp(link: 1, outer: self.link, in: nil)
        for number in 0..<count {
            let name = "\(self.prefix)-\(number + 1)"
            try Self.run("ip", "netns", "add", name)
            self.names.append(name)
            let near = ["ip", "link", "add", "link\(number + 2)", "netns", self.middle]
            try Self.run(near + ["type", "veth", "peer", "name", "far", "netns", name])
            try self.setUp(link: number + 2, outer: "far", in: name)
        }
    }

    deinit {
        // The other links go with their ends.
        _ = try? Self.run("ip", "link", "delete", self.link)
        for name in self.names { _ = try? Self.run("ip", "netns", "delete", name) }
    }

    /// The host at the end of a link; 1 is the test's own, which has no name.
    func name(_ link: Int) -> String { self.names[link - 1] }

    /// The address of the host in the middle, as it is reached by a link.
    func address(by link: Int) -> String { "198.18.\(link).1" }

    private func setUp(link: Int, outer: String, in name: String?) throws {
        try self.inside(self.middle, "ip", "address", "add", "198.18.\(link).1/24", "dev", "link\(link)")
        try self.inside(self.middle, "ip", "link", "set", "link\(link)", "up")
        let address = ["ip", "address", "add", "198.18.\(link).2/24", "dev", outer]
        let up = ["ip", "link", "set", "dev", outer, "up"]
        if let name {
            try self.inside(name, "ip", "link", "set", "lo", "up")
            try self.inside(name, address)
            try self.inside(name, up)
        } else {
            try Self.run(address)
            try Self.run(up)
        }
    }

    // MARK: Faults

    enum Direction { case both, toMiddle, fromMiddle }

    /// Drops packets of a link without a word.
    ///
    /// Where they arrive, if that host is ours: what a host drops of its own sending, it knows to be lost.
    func cut(_ link: Int, _ direction: Direction = .both) throws {
        var rules: [String] = []
        if direction != .fromMiddle { rules.append(self.rule("input", "iifname \"link\(link)\" drop")) }
        if direction != .toMiddle {
            if link == 1 {
                rules.append(self.rule("output", "oifname \"link\(link)\" drop"))
            } else {
                try self.filter([self.rule("input", "iifname \"far\" drop")], on: self.name(link))
            }
        }
        if !rules.isEmpty { try self.filter(rules, on: self.middle) }
    }

    /// Drops so many of a hundred packets of a link, in both directions.
    func lose(percent: Int, of link: Int) throws {
        let loss = "numgen random mod 100 < \(percent) drop"
        try self.filter(
            [
                self.rule("input", "iifname \"link\(link)\" \(loss)"),
                self.rule("output", "oifname \"link\(link)\" \(loss)"),
            ],
            on: self.middle
        )
    }

    /// Lets so many kilobits a second through a link, in each direction.
    func throttle(kilobits: Int, of link: Int) throws {
        let rule = ["root", "tbf", "rate", "\(kilobits)kbit", "burst", "32kbit", "latency", "2s"]
        try self.inside(self.middle, ["tc", "qdisc", "add", "dev", "link\(link)"] + rule)
        if link == 1 {
            try Self.run(["tc", "qdisc", "add", "dev", self.link] + rule)
        } else {
            try self.inside(self.name(link), ["tc", "qdisc", "add", "dev", "far"] + rule)
        }
    }

    /// Forgets the connections that are there, as an address translator does with idle ones: their packets are dropped.
    func forgetConnections(by link: Int) throws {
        let list = try self.inside(self.middle, "ss", "-tnH", "state", "established")
        let prefix = "198.18.\(link).2:"
        let ports = list.split(whereSeparator: \.isWhitespace).map(String.init)
            .filter { $0.hasPrefix(prefix) || $0.hasPrefix("[::ffff:198.18.\(link).2]:") }
            .compactMap { $0.split(separator: ":").last.map(String.init) }
        guard !ports.isEmpty else { throw Failure(message: "no connections by link \(link) among:\n\(list)") }
        let set = "{ \(ports.joined(separator: ", ")) }"
        try self.filter(
            [
                self.rule("input", "iifname \"link\(link)\" tcp sport \(set) drop"),
                self.rule("output", "oifname \"link\(link)\" tcp dport \(set) drop"),
            ],
            on: self.middle
        )
    }

    /// Lets everything through again.
    func heal() throws {
        for name in self.names { try self.inside(name, "nft", "flush ruleset") }
    }

    private func rule(_ hook: String, _ rule: String) -> String {
        "chain \(hook) {\ntype filter hook \(hook) priority 0;\n\(rule)\n}"
    }

    private func filter(_ chains: [String], on name: String) throws {
        try self.inside(name, "nft", "table inet drover {\n\(chains.joined(separator: "\n"))\n}")
    }

    // MARK: Commands

    @discardableResult
    private func inside(_ name: String, _ command: String...) throws -> String { try self.inside(name, command) }

    @discardableResult
    private func inside(_ name: String, _ command: [String]) throws -> String {
        try Self.run(["ip", "netns", "exec", name] + command)
    }

    @discardableResult
    private static func run(_ command: String...) throws -> String { try Self.run(command) }

    @discardableResult
    private static func run(_ command: [String]) throws -> String {
        guard let program = Self.path(of: command[0]) else { throw Failure(message: "\(command[0]) is missing") }
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(filePath: program)
        process.arguments = Array(command.dropFirst())
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failure(message: "\(command.joined(separator: " ")): \(output)")
        }
        return output
    }

    private static func path(of program: String) -> String? {
        ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + program }.first { access($0, X_OK) == 0 }
    }
}
