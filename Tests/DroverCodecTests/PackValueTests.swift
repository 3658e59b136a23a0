// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import DroverCodec

/// Random values from a seed: SplitMix64.
struct RandomValues: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var word = self.state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    /// A number of any width, often close to where the encoding changes.
    private mutating func integer() -> PackValue {
        let magnitude = self.next() >> UInt64.random(in: 0..<64, using: &self)
        let edge = UInt64(1) << UInt64.random(in: 0..<64, using: &self)
        let bits = Bool.random(using: &self) ? magnitude : edge &- UInt64.random(in: 0...1, using: &self)
        if Bool.random(using: &self), let signed = Int64(exactly: bits) { return .int(-signed) }
        return Int64(exactly: bits).map { .int($0) } ?? .uint(bits)
    }

    private mutating func text() -> String {
        let alphabet: [Character] = ["a", "Z", "0", "é", "\0", "日", "👍", "\u{FFFD}"]
        let lengths = [0, 1, 5, 31, 32, 80, 255, 256, 300]
        let length = Int.random(in: 0...(lengths.randomElement(using: &self) ?? 0), using: &self)
        return String((0..<length).map { _ in alphabet.randomElement(using: &self) ?? "a" })
    }

    mutating func value(depth: Int = 0) -> PackValue {
        switch Int.random(in: 0..<(depth < 5 ? 12 : 9), using: &self) {
        case 0: return .nil
        case 1: return .bool(Bool.random(using: &self))
        case 2, 3: return self.integer()
        case 4: return .double(Double(bitPattern: self.next()))
        case 5: return .double(Double(Int.random(in: -9...9, using: &self)) / 4)
        case 6: return .string(self.text())
        case 7:
            return .binary(
                (0..<Int.random(in: 0...70, using: &self)).map { _ in UInt8.random(in: 0...255, using: &self) }
            )
        case 8:
            let bytes = (0..<Int.random(in: 0...20, using: &self)).map { _ in UInt8.random(in: 0...255, using: &self) }
            return .extended(type: Int8.random(in: 0...127, using: &self), bytes)
        case 9, 10:
            let count = Int.random(in: 0...(depth == 0 ? 40 : 5), using: &self)
            return .array((0..<count).map { _ in self.value(depth: depth + 1) })
        default:
            var keys: Set<PackValue> = []
            for _ in 0..<Int.random(in: 0...(depth == 0 ? 40 : 5), using: &self) {
                keys.insert(Bool.random(using: &self) ? .string(self.text()) : self.integer())
            }
            return .map(keys.map { PackValue.Entry(key: $0, value: self.value(depth: depth + 1)) })
        }
    }
}

/// Runs Python, which knows MessagePack by an implementation that isn't ours.
enum Python {
    static let executable = ProcessInfo.processInfo.environment["DROVER_PYTHON"] ?? "python3"

    /// Whether there is a Python with `msgpack`; says so if there is none.
    static let hasMessagePack: Bool = {
        let works = (try? Python.run("import msgpack", input: Data())) != nil
        if !works {
            print("skipped: \(Python.executable) has no msgpack; install it or name another Python in DROVER_PYTHON")
        }
        return works
    }()

    struct Failure: Error { let status: Int32 }

    static func run(_ program: String, input: Data) throws -> Data {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("drover-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        // Files instead of pipes: both sides would have to read and write at once.
        let source = directory.appendingPathComponent("in")
        let target = directory.appendingPathComponent("out")
        try input.write(to: source)
        try Data().write(to: target)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [self.executable, "-c", program]
        process.standardInput = try FileHandle(forReadingFrom: source)
        process.standardOutput = try FileHandle(forWritingTo: target)
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        if process.terminationStatus != 0 { throw Failure(status: process.terminationStatus) }
        return try Data(contentsOf: target)
    }
}

@Suite("Pack values")
struct PackValueTests {
    private static let seed =
        ProcessInfo.processInfo.environment["DROVER_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<(1 << 32))

    /// How many times fewer values are tried where each takes many times longer.
    private static let share = ProcessInfo.processInfo.environment["DROVER_SANITIZED"] == nil ? 1 : 10

    init() {
        print("seed \(Self.seed); repeat with DROVER_SEED=\(Self.seed)")
    }

    @Test("random values come back as they went")
    func roundTrip() throws {
        var random = RandomValues(seed: Self.seed)
        var (changed, skippedElsewhere) = (0, 0)
        for _ in 0..<3_000 {
            let value = random.value()
            let bytes = try packed(value)
            if try packed(unpacked(PackValue.self, bytes)) != bytes { changed += 1 }
            let end = try withPackReader(over: bytes) { reader throws(CodecError) in
                try reader.skip()
                return reader.offset
            }
            if end != bytes.count { skippedElsewhere += 1 }
        }
        #expect(changed == 0)
        #expect(skippedElsewhere == 0)
    }

    @Test("every truncation is an error", .timeLimit(.minutes(1)))
    func truncations() throws {
        var random = RandomValues(seed: Self.seed)
        // Counted, as an expectation for each would take most of the time.
        var (accepted, refused) = (0, 0)
        func attempt(_ body: () throws(CodecError) -> Void) {
            do throws(CodecError) {
                try body()
                accepted += 1
            } catch {
                refused += 1
            }
        }
        for _ in 0..<200 / Self.share {
            let bytes = try packed(random.value())
            for length in 0..<min(bytes.count, 500) {
                let part = Array(bytes[..<length])
                attempt { () throws(CodecError) in _ = try unpacked(PackValue.self, part) }
                attempt { () throws(CodecError) in
                    try withPackReader(over: part) { reader throws(CodecError) in try reader.skip() }
                }
            }
        }
        #expect(accepted == 0)
        #expect(refused > 1_000 / Self.share)
    }

    @Test("every flipped bit decodes or errors, and what decodes is stable", .timeLimit(.minutes(1)))
    func flippedBits() throws {
        var random = RandomValues(seed: Self.seed)
        var (decoded, refused, unstable) = (0, 0, 0)
        for _ in 0..<40 / Self.share {
            let bytes = try packed(random.value())
            for bit in 0..<min(bytes.count * 8, 2_000) {
                var damaged = bytes
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                do throws(CodecError) {
                    let value = try unpacked(PackValue.self, damaged)
                    let again = try packed(value)
                    if try packed(unpacked(PackValue.self, again)) != again { unstable += 1 }
                    decoded += 1
                } catch {
                    refused += 1
                }
            }
        }
        #expect(decoded > 0 && refused > 0)
        #expect(unstable == 0)
    }

    @Test("what Swift packs, Python reads and packs to the same bytes", .enabled(if: Python.hasMessagePack))
    func swiftToPython() throws {
        var random = RandomValues(seed: Self.seed)
        var document = Data()
        for _ in 0..<6_000 { document.append(contentsOf: try packed(random.value())) }
        let program = """
            import sys, msgpack
            unpacker = msgpack.Unpacker(sys.stdin.buffer, strict_map_key=False, timestamp=0,
                object_pairs_hook=lambda pairs: Map(pairs))
            class Map(list): pass
            packer = msgpack.Packer(autoreset=False)
            def write(value):
                if isinstance(value, Map):
                    packer.pack_map_header(len(value))
                    for key, item in value: write(key); write(item)
                elif isinstance(value, msgpack.Timestamp): packer.pack_ext_type(-1, value.to_bytes())
                elif isinstance(value, list):
                    packer.pack_array_header(len(value))
                    for item in value: write(item)
                else: packer.pack(value)
            for value in unpacker: write(value)
            sys.stdout.buffer.write(packer.bytes())
            """
        #expect(try Python.run(program, input: document) == document)
    }

    @Test("what Python packs, Swift reads and packs to the same bytes", .enabled(if: Python.hasMessagePack))
    func pythonToSwift() throws {
        let program = """
            import sys, random, struct, msgpack
            random.seed(\(Self.seed))
            def text():
                return ''.join(random.choice('aZ0é日👍\\0\\ufffd') for _ in range(random.randint(0, random.choice([1, 31, 33, 300]))))
            def integer():
                bits = random.getrandbits(random.randint(0, 63))
                return random.choice([bits, -bits, 2 ** random.randint(0, 63), 2 ** random.randint(0, 63) - 1,
                    -2 ** random.randint(0, 63), 2 ** 64 - 1])
            def value(depth):
                kind = random.randrange(11 if depth < 5 else 8)
                if kind == 0: return None
                if kind == 1: return random.random() < 0.5
                if kind in (2, 3): return integer()
                if kind == 4: return struct.unpack('>d', random.randbytes(8))[0]
                if kind == 5: return text()
                if kind == 6: return random.randbytes(random.randint(0, random.choice([3, 70, 300])))
                if kind == 7: return msgpack.ExtType(random.randint(0, 127), random.randbytes(random.randint(0, 20)))
                count = random.randint(0, 40 if depth == 0 else 5)
                if kind in (8, 9): return [value(depth + 1) for _ in range(count)]
                return {random.choice([text, integer])(): value(depth + 1) for _ in range(count)}
            for _ in range(6000): sys.stdout.buffer.write(msgpack.packb(value(0)))
            """
        let document = [UInt8](try Python.run(program, input: Data()))
        var writer = PackWriter(capacity: document.count)
        let count = try withPackReader(over: document) { reader throws(CodecError) in
            var count = 0
            while !reader.isAtEnd {
                try PackValue.unpack(from: &reader).pack(into: &writer)
                count += 1
            }
            return count
        }
        #expect(count == 6_000)
        #expect(writer.withBytes { [UInt8]($0) } == document)
    }

    @Test("fields of a map are found by name")
    func subscriptByName() throws {
        let value = try unpacked(PackValue.self, packed(["a": 1]))
        #expect(value["a"] == .int(1))
        #expect(value["b"] == nil)
        #expect(PackValue.nil["a"] == nil)
    }

    @Test("values pass through other coders as far as those can hold them")
    func json() throws {
        let value = PackValue.map([
            .init(key: .string("list"), value: .array([.int(-1), .double(0.5), .bool(true), .nil, .string("x")]))
        ])
        #expect(try JSONDecoder().decode(PackValue.self, from: JSONEncoder().encode(value)) == value)
        #expect(throws: EncodingError.self) { try JSONEncoder().encode(PackValue.extended(type: 1, [])) }
    }
}
