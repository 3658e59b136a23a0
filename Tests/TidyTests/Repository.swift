// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One text file of this repository, as bytes: these tests read everything at each run and should not be felt.
struct RepositoryFile: Sendable {
    /// The path from the top of the repository.
    let path: String
    let bytes: [UInt8]

    var name: Substring { path[(path.lastIndex(of: "/").map(path.index(after:)) ?? path.startIndex)...] }

    var pathExtension: Substring { name.lastIndex(of: ".").map { name[name.index(after: $0)...] } ?? "" }

    var isSwift: Bool { pathExtension == "swift" }

    /// The target whose folder under `Sources` holds this file.
    var libraryTarget: String? {
        let parts = path.split(separator: "/", maxSplits: 2)
        return parts.count == 3 && parts[0] == "Sources" ? String(parts[1]) : nil
    }

    /// Calls `body` with the offset of each place where `needle` stands.
    func forEachOccurrence(of needle: String, _ body: (Int) -> Void) {
        let pattern = Array(needle.utf8)
        var start = 0
        while let found = offset(of: pattern, from: start) {
            body(found)
            start = found + pattern.count
        }
    }

    /// The first place of `pattern` at or after `start`.
    ///
    /// The C library looks for the pattern's first uncommon byte; a loop over all bytes would be slow without
    /// optimisation, and this runs for every name in every file.
    func offset(of pattern: [UInt8], from start: Int) -> Int? {
        let lead = pattern.firstIndex { !(UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) && $0 != 32 } ?? 0
        let last = bytes.count - pattern.count
        guard !pattern.isEmpty, start <= last else { return nil }
        return bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return nil }
            var candidate = start
            while candidate <= last {
                let from = base + candidate + lead
                guard let found = memchr(from, Int32(pattern[lead]), last - candidate + 1) else { return nil }
                candidate = UnsafeRawPointer(found) - base - lead
                if memcmp(base + candidate, pattern, pattern.count) == 0 { return candidate }
                candidate += 1
            }
            return nil
        }
    }

    func lineNumber(at offset: Int) -> Int {
        1 + bytes[..<offset].count { $0 == UInt8(ascii: "\n") }
    }

    func lineStart(at offset: Int) -> Int {
        bytes[..<offset].lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
    }

    /// The line around `offset`, without its end.
    func line(at offset: Int) -> String {
        let end = bytes[offset...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
        return text(lineStart(at: offset)..<end)
    }

    func text(_ range: Range<Int>) -> String {
        String(decoding: bytes[range], as: UTF8.self)
    }

    var text: String { text(0..<bytes.count) }

    /// `path:line`, as compilers write it.
    func place(_ offset: Int) -> String { "\(path):\(lineNumber(at: offset))" }
}

/// The files of this repository that people write.
struct Repository: Sendable {
    static let shared = Repository()

    let files: [RepositoryFile]
    private let root: String

    private init() {
        root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path(percentEncoded: false)
        var files: [RepositoryFile] = []
        Self.collect(folder: "", under: root, into: &files)
        self.files = files.sorted { $0.path < $1.path }
    }

    func file(_ path: String) -> RepositoryFile? {
        files.first { $0.path == path }
    }

    /// True if there is a file or folder of that path, of whatever kind.
    func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: root + path)
    }

    /// The files below any of these folders.
    func files(under folders: String...) -> [RepositoryFile] {
        files.filter { file in folders.contains { file.path.hasPrefix($0 + "/") } }
    }

    /// Neither built things, nor other people's, nor what tools leave behind (see `.gitignore`).
    private static func isForeign(_ name: String) -> Bool {
        [".git", ".swiftpm", ".venv", "__pycache__", "corpus", "Package.resolved", "bench.md", "bench.jsonl"]
            .contains(name) || name.hasPrefix(".build")
    }

    private static let textExtensions: Set<Substring> = [
        "c", "h", "json", "md", "modulemap", "py", "service", "sh", "supp", "swift", "txt", "yaml", "yml",
    ]

    private static let textNames: Set<Substring> = [
        ".editorconfig", ".gitignore", ".swift-format", "LICENSE", "Makefile", "run",
    ]

    private static func collect(folder: String, under root: String, into files: inout [RepositoryFile]) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: root + folder)) ?? [] where !isForeign(name) {
            let path = folder.isEmpty ? name : "\(folder)/\(name)"
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: root + path, isDirectory: &isFolder) else { continue }
            if isFolder.boolValue {
                collect(folder: path, under: root, into: &files)
                continue
            }
            let file = RepositoryFile(path: path, bytes: [])
            guard textNames.contains(file.name) || textExtensions.contains(file.pathExtension) else { continue }
            if let data = FileManager.default.contents(atPath: root + path) {
                files.append(RepositoryFile(path: path, bytes: Array(data)))
            }
        }
    }
}
