// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What the system's own `sha256sum` says of files: the digest of each that it can read.
func systemDigests(of paths: [String]) throws -> [String: String] {
    var digests: [String: String] = [:]
    var rest = paths[...]
    while !rest.isEmpty {
        // As many as a command line takes without asking the system how much that is.
        var length = 0
        let chunk = rest.prefix { path in
            length += path.utf8.count + 1
            return length < 64 << 10
        }
        let chosen = chunk.isEmpty ? rest.prefix(1) : chunk
        try runSystemTool(on: Array(chosen), into: &digests)
        rest = rest.dropFirst(chosen.count)
    }
    return digests
}

private func runSystemTool(on paths: [String], into digests: inout [String: String]) throws {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/env")
    // Records end in a zero byte, so no name needs quoting.
    process.arguments = ["sha256sum", "--zero", "--"] + paths
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    // What it can't read is missing from its answer, which is what is compared.
    process.standardError = FileHandle.nullDevice
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationReason == .exit, process.terminationStatus <= 1 else {
        throw Failure("sha256sum ended with status \(process.terminationStatus); is it installed?")
    }
    for record in data.split(separator: 0) {
        let text = String(decoding: record, as: UTF8.self)
        // 64 digits, a space, a space or an asterisk, the name.
        digests[String(text.dropFirst(66))] = String(text.prefix(64))
    }
}
