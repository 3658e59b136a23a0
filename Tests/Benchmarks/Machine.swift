// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Where and with what it was measured.
struct Machine {
    var system: String
    var cpu: String
    var cores: Int
    var versions: [String: String]
    var date: String

    /// With the versions of these peers, as far as they are there.
    static func current(with peers: [Peer]) throws -> Machine {
        var name = utsname()
        uname(&name)
        var versions = ["libzmq": try PlainBaseline.version(), "swift": self.swiftVersion()]
        for peer in peers { versions[peer.name] = peer.version() }
        versions["kernel"] = self.text(name.release)
        return Machine(
            system: "\(self.text(name.sysname)) \(self.text(name.machine))",
            cpu: self.cpuModel(),
            cores: ProcessInfo.processInfo.activeProcessorCount,
            versions: versions,
            date: Date.now.formatted(.iso8601)
        )
    }

    /// The load average over the last minute.
    static func load() -> Double {
        var load = 0.0
        return getloadavg(&load, 1) == 1 ? load : 0
    }

    /// Everything in one line.
    var summary: String {
        let parts = [
            self.system, self.cpu, "\(self.cores) cores", "kernel \(self.versions["kernel"] ?? "unknown")",
            "Swift \(self.versions["swift"] ?? "unknown")", "libzmq \(self.versions["libzmq"] ?? "unknown")",
        ]
        let peers = self.versions.filter { !["kernel", "swift", "libzmq"].contains($0.key) }
        let others = peers.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        return (parts + others + [self.date]).joined(separator: ", ")
    }

    private static func cpuModel() -> String {
        // A file that isn't there, or has no such line, is no reason not to measure.
        let information = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = information.split(separator: "\n").first { $0.hasPrefix("model name") }
        let model = line?.split(separator: ":").last
        return model?.trimmingCharacters(in: .whitespaces) ?? "unknown processor"
    }

    /// The compiler on the path, which is the one that `swift build` has used.
    private static func swiftVersion() -> String {
        do {
            let child = try Child(Command("swift", ["--version"]))
            let line = try child.line(within: 30)
            try child.finish()
            let words = line.split(separator: " ")
            guard let index = words.firstIndex(of: "version"), index + 1 < words.count else { return "unknown" }
            return String(words[index + 1])
        } catch {
            // Built elsewhere and copied here: nothing to say.
            return "unknown"
        }
    }

    /// A C string of fixed size, which Swift sees as a tuple.
    private static func text<Characters>(_ characters: Characters) -> String {
        withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
