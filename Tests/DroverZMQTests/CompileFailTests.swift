// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Shows that misuse of the owner types doesn't compile.
///
/// Each file of `Tests/CompileFail` begins with `// expect:` and a part of the error that the compiler must give, or
/// with `nothing` if it must compile.
@Suite("Compile-fail")
struct CompileFailTests {
    private static let packageFolder = URL(filePath: #filePath)
        .deletingLastPathComponent()
        .deletingLastPathComponent()
        .deletingLastPathComponent()

    private static let caseFolder = packageFolder.appending(path: "Tests/CompileFail")

    private static let cases = ((try? FileManager.default.contentsOfDirectory(atPath: caseFolder.path)) ?? [])
        .filter { $0.hasSuffix(".swift") }
        .sorted()

    /// The folder with the modules of this build: beside the test bundle, which is this executable or its argument.
    private static let moduleFolder: URL? = {
        let executable = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return ([executable].compactMap { $0 } + CommandLine.arguments)
            .filter { $0.contains(".xctest") }
            .map { URL(filePath: $0).deletingLastPathComponent().appending(path: "Modules") }
            .first { FileManager.default.fileExists(atPath: $0.appending(path: "DroverZMQ.swiftmodule").path) }
    }()

    /// SwiftPM calls a root package after its folder; only the same package sees `package` declarations.
    private static let packageName = String(
        packageFolder.lastPathComponent.lowercased().map { $0.isLetter || $0.isNumber ? $0 : "_" }
    )

    @Test("there are cases, one that compiles among them")
    func casesExist() {
        #expect(Self.cases.count > 5)
        #expect(Self.cases.contains("Compiles.swift"))
    }

    @Test("misuse doesn't compile, with the expected diagnostic", .timeLimit(.minutes(2)), arguments: cases)
    func misuse(name: String) throws {
        let modules = try #require(Self.moduleFolder)
        let file = Self.caseFolder.appending(path: name)
        let firstLine = try #require(String(contentsOf: file, encoding: .utf8).split(separator: "\n").first)
        let prefix = "// expect: "
        try #require(firstLine.hasPrefix(prefix))
        let expected = firstLine.dropFirst(prefix.count)

        let compiler = Process()
        compiler.executableURL = URL(filePath: "/usr/bin/env")
        compiler.arguments = [
            // Not `-typecheck`: the rules of ownership are checked one stage later.
            "swiftc", "-emit-sil", "-o", "/dev/null", "-swift-version", "6", "-package-name", Self.packageName,
            "-enable-upcoming-feature", "NonisolatedNonsendingByDefault",
            "-I", modules.path,
            "-Xcc", "-fmodule-map-file=\(Self.packageFolder.path)/Sources/CDroverZMQ/module.modulemap",
            "-module-cache-path", modules.deletingLastPathComponent().appending(path: "CompileFailCache").path,
            file.path,
        ]
        let output = Pipe()
        compiler.standardOutput = output
        compiler.standardError = output
        try compiler.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        compiler.waitUntilExit()

        if expected == "nothing" {
            #expect(compiler.terminationStatus == 0, "\(text)")
        } else {
            #expect(compiler.terminationStatus != 0)
            let errors = text.split(separator: "\n").filter { $0.contains("error: ") }
            #expect(errors.contains { $0.contains(expected) }, "\(text)")
        }
    }
}
