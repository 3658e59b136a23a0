// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// The house rules that a machine can check, over our own files.
///
/// Each failure names the place and the remedy. Where a rule must be broken, the exception goes into `exceptions` with
/// its reason, so that it is seen in review.
@Suite("Tidy")
struct TidyTests {
    private let repository = Repository.shared

    // MARK: Imports and names

    /// What each target may import.
    ///
    /// The core reads no clock, file, socket or entropy, and only `DroverZMQ` sees the C library; `Drover` stays free of
    /// Foundation, whose start-up and memory are felt.
    private static let allowedImports: [String: Set<String>] = [
        // Glibc only for malloc and free: libzmq frees what the writer allocates.
        "DroverCodec": ["Glibc", "Synchronization"],
        "DroverWire": ["DroverCodec"],
        "DroverCore": ["DequeModule", "DroverCodec", "DroverWire"],
        // Dispatch only for what it opens for itself, and in the runtime for the signals that it hears.
        "DroverZMQ": ["CDroverZMQ", "Dispatch", "Glibc", "Synchronization"],
        "DroverRuntime": [
            "DequeModule", "Dispatch", "DroverCodec", "DroverCore", "DroverWire", "DroverZMQ", "Glibc", "Logging",
            "ServiceLifecycle", "Synchronization",
        ],
        "Drover": [
            "DequeModule", "DroverCodec", "DroverCore", "DroverRuntime", "DroverWire", "DroverZMQ", "Glibc", "Logging",
            "ServiceLifecycle", "Synchronization",
        ],
        // Glibc only for malloc and free.
        "DroverBroker": [
            "DroverCodec", "DroverCore", "DroverRuntime", "DroverWire", "DroverZMQ", "Glibc", "Logging",
            "ServiceLifecycle", "Synchronization",
        ],
    ]

    /// Targets that are programs for people: they may use Foundation, print, and import what they like.
    private static let toolTargets: Set<String> = ["DroverTool"]

    @Test("each library imports only what its layer may")
    func imports() {
        for file in repository.files(under: "Sources") where file.isSwift {
            guard let target = file.libraryTarget, !Self.toolTargets.contains(target) else { continue }
            guard let allowed = Self.allowedImports[target] else {
                Issue.record(
                    "\(file.path): target \(target) is new; say in TidyTests.allowedImports what it may import"
                )
                continue
            }
            file.forEachOccurrence(of: "import ") { offset in
                guard let module = importedModule(file.line(at: offset)), !allowed.contains(module) else { return }
                Issue.record("\(file.place(offset)): \(target) must not import \(module); use it in a layer that may")
            }
        }
    }

    /// The compiler finds products of packages that some other target depends on, so it doesn't tell.
    @Test("the manifest lists what each target imports, and nothing else")
    func dependencies() throws {
        let manifest = try #require(self.repository.file("Package.swift")).text
        let system: Set<String> = ["Dispatch", "Foundation", "FoundationEssentials", "Glibc", "Synchronization"]
        var imported: [String: Set<String>] = [:]
        for file in self.repository.files(under: "Sources") where file.isSwift {
            guard let target = file.libraryTarget else { continue }
            file.forEachOccurrence(of: "import ") { offset in
                guard let module = importedModule(file.line(at: offset)), !system.contains(module) else { return }
                imported[target, default: []].insert(module)
            }
        }
        #expect(imported.count > 5)
        for (target, modules) in imported {
            // `.library` and `.executable` name targets too, so the target is what has settings.
            let declaration = manifest.components(separatedBy: "arget(")
                .first { block in
                    block.contains("name: \"\(target)\"") && block.contains("swiftSettings")
                }
            let names = try #require(declaration).components(separatedBy: "\"")
            let list = names[(try #require(names.firstIndex(of: target)) + 1)...].joined(separator: "\"")
            let end = list.range(of: "swiftSettings")?.lowerBound ?? list.endIndex
            var listed: Set<String> = []
            for part in list[..<end].components(separatedBy: "\"").enumerated() where part.offset % 2 == 1 {
                listed.insert(part.element)
            }
            // A product's package stands beside its name.
            listed = listed.filter { !$0.hasPrefix("swift-") }
            #expect(modules.subtracting(listed).isEmpty, "\(target): add these to its dependencies in Package.swift")
            #expect(listed.subtracting(modules).isEmpty, "\(target): take these out of its dependencies")
        }
    }

    private func importedModule(_ line: String) -> String? {
        let words = line.split(separator: " ")
        guard let keyword = words.firstIndex(of: "import"), keyword + 1 < words.count else { return nil }
        let modifiers: Set<Substring> = ["public", "package", "internal", "fileprivate", "private"]
        guard words[..<keyword].allSatisfy({ modifiers.contains($0) || $0.hasPrefix("@") }) else { return nil }
        let kinds: Set<Substring> = ["class", "enum", "func", "let", "protocol", "struct", "typealias", "var"]
        let named = kinds.contains(words[keyword + 1]) ? keyword + 2 : keyword + 1
        guard named < words.count else { return nil }
        return words[named].split(separator: ".").first.map(String.init)
    }

    /// A name that must not appear in code, where, and what to write instead.
    private struct ForbiddenName: Sendable {
        var name: String
        var remedy: String
        var places: @Sendable (RepositoryFile) -> Bool
    }

    private static let pureTargets: Set<String> = ["DroverCodec", "DroverWire", "DroverCore"]

    private static let inPureTargets: @Sendable (RepositoryFile) -> Bool = { file in
        file.libraryTarget.map(pureTargets.contains) ?? false
    }
    private static let inLibraries: @Sendable (RepositoryFile) -> Bool = { file in
        file.libraryTarget.map { !toolTargets.contains($0) } ?? false
    }
    private static let inSources: @Sendable (RepositoryFile) -> Bool = { $0.libraryTarget != nil }
    private static let inSourcesAndExamples: @Sendable (RepositoryFile) -> Bool = { file in
        file.libraryTarget != nil || file.path.hasPrefix("examples/")
    }

    private static let forbiddenNames: [ForbiddenName] = [
        .init(name: "Date(", remedy: "take the clock's reading as an argument", places: inPureTargets),
        .init(name: "ContinuousClock", remedy: "take the clock's reading as an argument", places: inPureTargets),
        .init(name: "SuspendingClock", remedy: "take the clock's reading as an argument", places: inPureTargets),
        .init(name: "Task {", remedy: "return an action; the shell runs it", places: inPureTargets),
        .init(name: "Task.", remedy: "return an action; the shell runs it", places: inPureTargets),
        .init(name: "await ", remedy: "return an action; the shell runs it", places: inPureTargets),
        .init(name: "getenv(", remedy: "take a configuration value", places: inLibraries),
        .init(name: "@unchecked Sendable", remedy: "use a Mutex around a value", places: inSourcesAndExamples),
        .init(name: "nonisolated(unsafe)", remedy: "use a Mutex or an Atomic", places: inSourcesAndExamples),
        .init(name: "@preconcurrency", remedy: "make the types Sendable", places: inSourcesAndExamples),
        .init(
            name: "SystemRandomNumberGenerator",
            remedy: "take it from LifeRandomness, where chance is drawn",
            places: inSources
        ),
        .init(
            name: ".random(",
            remedy: "take it from LifeRandomness, where chance is drawn",
            places: inSources
        ),
        .init(name: "Task.detached", remedy: "use a child task in a group", places: inSourcesAndExamples),
        .init(name: "DispatchQueue", remedy: "use a thread or a task of ours", places: inSourcesAndExamples),
        .init(name: "try!", remedy: "handle the error", places: inSourcesAndExamples),
        .init(name: "fatalError", remedy: "throw, or state an invariant by precondition", places: inSourcesAndExamples),
        .init(
            name: ".components",
            remedy: "use wholeNanoseconds or clampedNanoseconds: it ends the process beyond 2^63 seconds",
            places: inSourcesAndExamples
        ),
        .init(name: "print(", remedy: "log through the logger that was given", places: inLibraries),
    ]

    /// Files that may use a forbidden name, and why.
    private static let exceptions: [(name: String, path: String, reason: String)] = [
        ("SystemRandomNumberGenerator", "Sources/DroverRuntime/Transport/LifeRandomness.swift", "this is that place"),
        (".random(", "Sources/DroverRuntime/Transport/LifeRandomness.swift", "this is that place"),
        (".random(", "Sources/DroverZMQ/RoutingIDs.swift", "seeds libzmq's own generator, before any life begins"),
        (".components", "Sources/DroverZMQ/Threads/MonotonicClock.swift", "within bounds that were compared first"),
        (".components", "Sources/DroverCodec/WireCodable+Standard.swift", "within bounds that were compared first"),
        (".components", "Sources/DroverCodec/PeopleText.swift", "within bounds that were compared first"),
        (
            "DispatchQueue", "Sources/DroverZMQ/Threads/DispatchDescriptors.swift",
            "has libdispatch open what it needs for itself"
        ),
        ("@unchecked Sendable", "Sources/DroverZMQ/Context.swift", "a libzmq context may be used from any thread"),
        ("@unchecked Sendable", "Sources/DroverZMQ/Message.swift", "a shared message is never changed again"),
        (
            "@unchecked Sendable", "Sources/DroverZMQ/Threads/LoopToken.swift",
            "what its constant pointer names is atomic"
        ),
        (
            "@unchecked Sendable", "Sources/DroverZMQ/Threads/FutexWord.swift",
            "what its constant pointer names is atomic"
        ),
        ("@unchecked Sendable", "Sources/Drover/Results/AsyncResult.swift", "the state word decides who writes, once"),
        ("@unchecked Sendable", "Sources/Drover/Results/AnyAsyncResult.swift", "the lock decides who writes, once"),
        ("@unchecked Sendable", "Sources/Drover/Batches/ChunkCall.swift", "as AnyAsyncResult: the poller writes, once"),
        ("@unchecked Sendable", "Sources/Drover/Results/RequestBytes.swift", "one holder at a time, then read only"),
        ("getenv(", "Sources/Drover/Worker/Isolation/ChildServer.swift", "how a process learns that it is a child"),
        (
            "@unchecked Sendable", "Sources/Drover/Worker/WorkerLoopThreads.swift",
            "the token's holder alone touches the loop"
        ),
        (
            "@unchecked Sendable", "Sources/Drover/Client/LoopOwnership.swift",
            "the lock's holder alone touches the loop"
        ),
        ("@unchecked Sendable", "Sources/DroverCore/Calls/IDTable.swift", "its memory has one owner"),
        ("@unchecked Sendable", "Sources/DroverCore/Memory/OwnedBuffer.swift", "its memory has one owner"),
    ]

    @Test("forbidden names stay out, but for exceptions with a reason")
    func names() {
        for file in repository.files where file.isSwift {
            for forbidden in Self.forbiddenNames where forbidden.places(file) {
                guard !Self.exceptions.contains(where: { $0.name == forbidden.name && $0.path == file.path }) else {
                    continue
                }
                file.forEachOccurrence(of: forbidden.name) { offset in
                    guard isCode(file, offset) else { return }
                    Issue.record("\(file.place(offset)): `\(forbidden.name)` is not used here; \(forbidden.remedy)")
                }
            }
        }
    }

    @Test("an exception that nothing needs any more is taken out")
    func exceptionsAreUsed() {
        for exception in Self.exceptions {
            guard let file = repository.file(exception.path) else { continue }
            if file.offset(of: Array(exception.name.utf8), from: 0) == nil {
                Issue.record("\(exception.path) no longer has `\(exception.name)`; remove it from TidyTests.exceptions")
            }
        }
    }

    /// True unless the place is in a comment, or in the middle of a longer name.
    private func isCode(_ file: RepositoryFile, _ offset: Int) -> Bool {
        let first = file.bytes[offset]
        if isNamePart(first), offset > 0, isNamePart(file.bytes[offset - 1]) { return false }
        return !file.text(file.lineStart(at: offset)..<offset).contains("//")
    }

    private func isNamePart(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
        default: false
        }
    }

    // MARK: Text

    @Test("no leftover markers")
    func markers() {
        // Written in halves, so that this file passes its own rule.
        for marker in ["TO" + "DO", "FIX" + "ME", "XX" + "X"] {
            for file in repository.files {
                file.forEachOccurrence(of: marker) { offset in
                    let after = offset + marker.utf8.count
                    let stands =
                        (offset == 0 || !isNamePart(file.bytes[offset - 1]))
                        && (after == file.bytes.count || !isNamePart(file.bytes[after]))
                    if stands { Issue.record("\(file.place(offset)): \(marker) is left; do it, or file an issue") }
                }
            }
        }
    }

    @Test("no tabs, no trailing space, one newline at the end")
    func whitespace() {
        for file in repository.files where file.name != "LICENSE" {
            if file.name != "Makefile" {
                file.forEachOccurrence(of: "\t") { Issue.record("\(file.place($0)): a tab; indent with spaces") }
            }
            file.forEachOccurrence(of: " \n") { Issue.record("\(file.place($0)): trailing space") }
            file.forEachOccurrence(of: "\r") { Issue.record("\(file.place($0)): a carriage return") }
            let newline = UInt8(ascii: "\n")
            if file.bytes.last != newline || file.bytes.dropLast().last == newline {
                Issue.record("\(file.path): must end with exactly one newline")
            }
        }
    }

    @Test("each source file names the licence in its first three lines")
    func licence() {
        let licensed: Set<Substring> = ["c", "h", "py", "sh", "swift"]
        for file in repository.files
        where licensed.contains(file.pathExtension) || file.name == "Makefile" || file.path == ".ci/run" {
            let head = file.text(0..<min(file.bytes.count, 300)).split(separator: "\n", maxSplits: 3)
            if !head.prefix(3).contains(where: { $0.hasSuffix("SPDX-License-Identifier: Apache-2.0") }) {
                Issue.record("\(file.path): put `SPDX-License-Identifier: Apache-2.0` in a comment at the top")
            }
        }
    }

    @Test("no file names a path of a machine it was built on")
    func machinePaths() {
        for path in ["/wo" + "rk/", "/ro" + "ot/"] {
            for file in repository.files {
                file.forEachOccurrence(of: path) { offset in
                    // `notes/work/` is a path like any other; the slash that begins an absolute one follows no name.
                    guard
                        offset == 0
                            || !(isNamePart(file.bytes[offset - 1]) || file.bytes[offset - 1] == UInt8(ascii: "."))
                    else { return }
                    Issue.record("\(file.place(offset)): \(path) is a path of some machine; use a relative one")
                }
            }
        }
    }

    @Test("long files and functions are listed, for somebody to look at")
    func lengths() {
        for file in repository.files(under: "Sources") where file.isSwift {
            let lines = file.lineNumber(at: file.bytes.count)
            if lines > 600 { print("notice: \(file.path) has \(lines) lines") }
            for keyword in ["func ", "init("] {
                file.forEachOccurrence(of: keyword) { offset in
                    guard isCode(file, offset), let length = functionLength(file, offset), length > 60 else { return }
                    print("notice: \(file.place(offset)): a function of \(length) lines")
                }
            }
        }
    }

    /// The number of lines of the function declared at `offset`: up to the brace that closes at its own indentation,
    /// which is where `swift format` puts it.
    private func functionLength(_ file: RepositoryFile, _ offset: Int) -> Int? {
        let start = file.lineStart(at: offset)
        let indentation = file.bytes[start...].prefix { $0 == UInt8(ascii: " ") }
        guard let end = file.offset(of: Array("\n".utf8) + indentation + Array("}\n".utf8), from: offset) else {
            return nil
        }
        // A declaration without a body, in a protocol, has another one before that brace.
        let body = file.bytes[offset..<end]
        let opened = body.firstIndex(of: UInt8(ascii: "{")) ?? end
        let next =
            file.offset(of: Array("\n".utf8) + indentation + Array("func ".utf8), from: offset) ?? file.bytes.count
        return opened < min(end, next) ? body.count { $0 == UInt8(ascii: "\n") } + 2 : nil
    }

    // MARK: The behaviour contract

    @Test("every point of the behaviour contract is named by a test, or by docs/contract-coverage.md")
    func contractCoverage() {
        let points = (1...104).map { "S\($0)" } + (1...44).map { "A\($0)" }
        let tested = Set(testNames().flatMap(contractPoints))
        let deferred = Set(deferredPoints())
        let missing = points.filter { !tested.contains($0) && !deferred.contains($0) }
        if !missing.isEmpty {
            Issue.record("no test's name has \(missing.joined(separator: " ")); begin a test's name with the number")
        }
        for point in tested.union(deferred).subtracting(points).sorted() {
            Issue.record("the contract has no point \(point)")
        }
        for point in tested.intersection(deferred).sorted() {
            Issue.record("\(point) has a test; take it out of docs/contract-coverage.md")
        }
    }

    @Test("docs/contract.md has each point once, and every number that code and documents name")
    func contractNumbers() {
        guard let contract = repository.file("docs/contract.md") else {
            Issue.record("docs/contract.md is missing: comments and tests refer to it")
            return
        }
        let defined = contract.text.split(separator: "\n")
            .compactMap { line -> String? in
                guard line.hasPrefix("- **S") || line.hasPrefix("| A") else { return nil }
                return contractPoints(String(line.prefix(12))).first
            }
        #expect(defined == (1...104).map { "S\($0)" } + (1...44).map { "A\($0)" })
        let known = Set(defined)
        for file in repository.files(under: "Sources", "Tests", "docs")
        where file.isSwift || file.pathExtension == "md" {
            for point in Set(contractPoints(file.text)).subtracting(known).sorted() {
                Issue.record("\(file.path) names \(point), which docs/contract.md doesn't have")
            }
        }
    }

    /// The display names of all tests.
    private func testNames() -> [String] {
        var names: [String] = []
        for file in repository.files(under: "Tests") where file.isSwift {
            file.forEachOccurrence(of: "@Test(") { offset in
                guard isCode(file, offset) else { return }
                let rest = file.bytes[(offset + 6)...].drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }
                guard rest.first == UInt8(ascii: "\"") else { return }
                let name = rest.dropFirst().prefix { $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\n") }
                names.append(String(decoding: name, as: UTF8.self))
            }
        }
        return names
    }

    /// The points that lines such as `- S104 the reason` put off.
    private func deferredPoints() -> [String] {
        guard let file = repository.file("docs/contract-coverage.md") else { return [] }
        return file.text.split(separator: "\n").filter { $0.hasPrefix("- ") }
            .flatMap { line in
                line.dropFirst(2).split(separator: " ").map { contractPoints(String($0)) }.prefix { !$0.isEmpty }
                    .flatMap { $0 }
            }
    }

    /// The numbers like S12 and A3 in a text.
    private func contractPoints(_ text: String) -> [String] {
        let words: [Substring] = text.split(whereSeparator: { !($0.isLetter || $0.isNumber) })
        let points = words.filter { word in
            (word.first == "S" || word.first == "A") && word.count > 1 && word.count <= 4
                && word.dropFirst().allSatisfy { $0.isASCII && $0.isNumber }
        }
        return points.map { String($0) }
    }

    // MARK: Documents that must agree with the code

    @Test("every kind of wire message is in docs/protocol.md")
    func messageKinds() {
        let declaration = Array("enum MessageKind".utf8)
        for file in repository.files(under: "Sources/DroverWire") {
            guard let start = file.offset(of: declaration, from: 0),
                let end = file.offset(of: Array("\n}".utf8), from: start)
            else { continue }
            let kinds = enumCases(file.text(start..<end))
            #expect(!kinds.isEmpty, "\(file.path): no case found in MessageKind")
            guard let specification = repository.file("docs/protocol.md") else {
                Issue.record("docs/protocol.md is missing: it specifies the message kinds of \(file.path)")
                continue
            }
            let words = Set(specification.text.lowercased().split(whereSeparator: { !($0.isLetter || $0.isNumber) }))
            for kind in kinds where !words.contains(kind.lowercased()[...]) {
                Issue.record("docs/protocol.md says nothing about the message kind `\(kind)` of \(file.path)")
            }
        }
    }

    /// The names after `case` in the body of an enum, switches left out.
    private func enumCases(_ body: String) -> [String] {
        body.split(separator: "\n")
            .flatMap { line -> [String] in
                let words = line.split(separator: " ")
                guard words.first == "case", let name = words.dropFirst().first, !name.hasPrefix("."),
                    !line.contains(":")
                else { return [] }
                return line.drop { $0 == " " }.dropFirst(5).split(separator: ",")
                    .map { part in
                        String(part.drop { $0 == " " || $0 == "`" }.prefix { $0.isLetter || $0.isNumber })
                    }
            }
    }

    @Test("what the glossary calls a word in the code is declared there")
    func glossary() {
        guard let glossary = repository.file("docs/glossary.md") else { return }
        var declared: Set<String> = []
        let keywords: Set<Substring> = [
            "class", "struct", "enum", "protocol", "func", "var", "let", "case", "typealias", "actor",
        ]
        for file in repository.files(under: "Sources") where file.isSwift {
            var isName = false
            for word in file.text.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "_") }) {
                if isName { declared.insert(String(word)) }
                isName = keywords.contains(word)
            }
        }
        for line in glossary.text.split(separator: "\n") where line.hasPrefix("|") {
            let cells = line.split(separator: "|", omittingEmptySubsequences: false)
            guard cells.count > 3 else { continue }
            for (index, code) in cells[2].split(separator: "`", omittingEmptySubsequences: false).enumerated()
            where index % 2 == 1 {
                // An ellipsis stands for what is in front of a name's end.
                let isEnd = code.hasPrefix("...")
                for part in code.drop(while: { $0 == "." }).split(separator: ".") {
                    let name = part.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
                    let isDeclared =
                        isEnd ? declared.contains { $0.hasSuffix(name) } : declared.contains(String(name))
                    if !isDeclared {
                        Issue.record("docs/glossary.md: \(name) of `\(code)` is declared nowhere in Sources")
                    }
                }
            }
        }
    }

    @Test("the version that the tool says is the one that the changelog is about")
    func version() {
        let changelog = repository.file("CHANGELOG.md")?.text.split(separator: "\n").first { $0.hasPrefix("## ") } ?? ""
        let tool = repository.file("Sources/DroverTool/DroverCommand.swift")?.text ?? ""
        let version = tool.split(separator: "version: \"").dropFirst().first?.prefix { $0 != "\"" } ?? ""
        #expect(
            !version.isEmpty && changelog.contains(version),
            "CHANGELOG.md begins with \(changelog), not \(version)"
        )
    }

    @Test("a setting that an error asks to raise exists")
    func remedies() {
        let sources = repository.files(under: "Sources").filter { $0.isSwift }
        for file in sources {
            file.forEachOccurrence(of: "raise max") { offset in
                let name = file.text(offset + 6..<file.bytes.count).prefix { $0.isLetter || $0.isNumber }
                let isThere = sources.contains { source in
                    source.offset(of: Array("public var \(name)".utf8), from: 0) != nil
                }
                if !isThere { Issue.record("\(file.place(offset)): nothing public is called \(name)") }
            }
        }
    }

    @Test("links between documents lead somewhere")
    func links() {
        for file in repository.files where file.pathExtension == "md" && !file.path.contains(".docc/") {
            let folder = URL(filePath: "/" + file.path).deletingLastPathComponent()
            file.forEachOccurrence(of: "](") { offset in
                let rest = file.text((offset + 2)..<min(offset + 300, file.bytes.count))
                let target = rest.prefix { $0 != ")" && $0 != "#" && $0 != " " && $0 != "\n" }
                guard !target.isEmpty, !target.contains(":") else { return }
                let path = folder.appending(path: String(target)).standardized.path(percentEncoded: false).dropFirst()
                if !repository.exists(String(path)) {
                    Issue.record("\(file.place(offset)): the link to \(target) leads nowhere")
                }
            }
        }
    }

    @Test("the Swift in README and guides is an excerpt of a file that is compiled or tested")
    func excerpts() {
        let documents = repository.files.filter { file in
            file.path == "README.md" || (file.path.hasPrefix("docs/guides/") && file.pathExtension == "md")
        }
        let blocks = documents.flatMap { document in
            swiftBlocks(document.text).map { (document.path, $0.line, $0.segments) }
        }
        guard !blocks.isEmpty else { return }
        let sources = repository.files(under: "examples", "Tests", "Sources")
            .filter { $0.isSwift && !$0.path.hasPrefix("Sources/") || $0.path.contains(".docc/") }
            .map { RepositoryFile(path: $0.path, bytes: essence($0.bytes)) }
        for (path, line, segments) in blocks where !sources.contains(where: { holds($0, segments) }) {
            Issue.record(
                """
                \(path):\(line): this Swift is not an excerpt of a file in examples/, Tests/ or a DocC catalogue; \
                copy consecutive lines of one, with a line `…` where lines are left out
                """
            )
        }
    }

    /// The fenced blocks of Swift: where each begins, and its runs of lines between ellipses.
    private func swiftBlocks(_ markdown: String) -> [(line: Int, segments: [[UInt8]])] {
        var blocks: [(line: Int, segments: [[UInt8]])] = []
        var current: (line: Int, segments: [[String]])?
        for (index, line) in markdown.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let trimmed = line.filter { !$0.isWhitespace }
            if current == nil {
                if trimmed == "```swift" { current = (index + 1, [[]]) }
            } else if trimmed == "```", let finished = current {
                let segments = finished.segments.filter { !$0.isEmpty }
                blocks.append((finished.line, segments.map { essence(Array($0.joined(separator: "\n").utf8)) }))
                current = nil
            } else if ["…", "...", "//…", "//..."].contains(trimmed) {
                current?.segments.append([])
            } else if !trimmed.isEmpty, let last = current?.segments.indices.last {
                current?.segments[last].append(trimmed)
            }
        }
        return blocks
    }

    /// The text without spaces and empty lines, with a newline before and after each line.
    private func essence(_ bytes: [UInt8]) -> [UInt8] {
        let newline = UInt8(ascii: "\n")
        var result: [UInt8] = [newline]
        result.reserveCapacity(bytes.count)
        for byte in bytes where byte != UInt8(ascii: " ") {
            if byte != newline || result.last != newline { result.append(byte) }
        }
        if result.last != newline { result.append(newline) }
        return result
    }

    /// True if the segments stand in that file, in this order.
    private func holds(_ file: RepositoryFile, _ segments: [[UInt8]]) -> Bool {
        var start = 0
        for segment in segments {
            guard let found = file.offset(of: segment, from: start) else { return false }
            // The newline that ends one segment may begin the next.
            start = found + segment.count - 1
        }
        return true
    }
}
