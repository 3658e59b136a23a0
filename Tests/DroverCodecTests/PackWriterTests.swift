// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverCodec

@Suite("Pack writer")
struct PackWriterTests {
    @Test(
        "integers take their smallest encoding",
        arguments: [
            (0, [0x00]), (127, [0x7F]), (128, [0xCC, 0x80]), (255, [0xCC, 0xFF]), (256, [0xCD, 1, 0]),
            (65_535, [0xCD, 0xFF, 0xFF]), (65_536, [0xCE, 0, 1, 0, 0]), (4_294_967_295, [0xCE, 255, 255, 255, 255]),
            (4_294_967_296, [0xCF, 0, 0, 0, 1, 0, 0, 0, 0]), (.max, [0xCF, 0x7F, 255, 255, 255, 255, 255, 255, 255]),
            (-1, [0xFF]), (-32, [0xE0]), (-33, [0xD0, 0xDF]), (-128, [0xD0, 0x80]), (-129, [0xD1, 0xFF, 0x7F]),
            (-32_768, [0xD1, 0x80, 0]), (-32_769, [0xD2, 255, 255, 0x7F, 255]),
            (-2_147_483_648, [0xD2, 0x80, 0, 0, 0]), (-2_147_483_649, [0xD3, 255, 255, 255, 255, 0x7F, 255, 255, 255]),
            (.min, [0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] as [(Int64, [UInt8])]
    )
    func integers(value: Int64, bytes: [UInt8]) throws {
        #expect(try packed(value) == bytes)
        #expect(try unpacked(Int64.self, bytes) == value)
        #expect(try unpacked(Int.self, bytes) == Int(value))
        #expect(try unpacked(PackValue.self, bytes) == .int(value))
    }

    @Test("unsigned integers reach beyond the signed ones")
    func unsignedIntegers() throws {
        let bytes: [UInt8] = [0xCF, 0x80, 0, 0, 0, 0, 0, 0, 0]
        #expect(try packed(UInt64(1) << 63) == bytes)
        #expect(try unpacked(UInt64.self, bytes) == 1 << 63)
        #expect(try unpacked(PackValue.self, bytes) == .uint(1 << 63))
        #expect(try packed(UInt64.max) == [0xCF] + Array(repeating: 255, count: 8))
        #expect(throws: CodecError.self) { try unpacked(Int64.self, bytes) }
    }

    @Test(
        "texts and bytes take their smallest heads and come back",
        arguments: [
            (0, [0xA0], [0xC4, 0]), (31, [0xBF], [0xC4, 31]), (32, [0xD9, 32], [0xC4, 32]),
            (255, [0xD9, 255], [0xC4, 255]), (256, [0xDA, 1, 0], [0xC5, 1, 0]),
            (65_535, [0xDA, 255, 255], [0xC5, 255, 255]), (65_536, [0xDB, 0, 1, 0, 0], [0xC6, 0, 1, 0, 0]),
        ] as [(Int, [UInt8], [UInt8])]
    )
    func textsAndBytes(count: Int, textHead: [UInt8], bytesHead: [UInt8]) throws {
        let text = String(repeating: "x", count: count)
        let encoded = try packed(text)
        #expect(encoded == textHead + Array(text.utf8))
        #expect(try unpacked(String.self, encoded) == text)
        let bytes = [UInt8](repeating: 0xFE, count: count)
        let encodedBytes = try packed(bytes)
        #expect(encodedBytes == bytesHead + bytes)
        #expect(try unpacked([UInt8].self, encodedBytes) == bytes)
        #expect(throws: CodecError.self) { try unpacked([UInt8].self, encoded) }
        #expect(throws: CodecError.self) { try unpacked(String.self, encodedBytes) }
    }

    @Test(
        "arrays and maps take their smallest heads and come back",
        arguments: [
            (0, [0x90], [0x80]), (15, [0x9F], [0x8F]), (16, [0xDC, 0, 16], [0xDE, 0, 16]),
            (65_535, [0xDC, 255, 255], [0xDE, 255, 255]), (65_536, [0xDD, 0, 1, 0, 0], [0xDF, 0, 1, 0, 0]),
        ] as [(Int, [UInt8], [UInt8])]
    )
    func containers(count: Int, arrayHead: [UInt8], mapHead: [UInt8]) throws {
        let array = (0..<count).map { $0 % 7 == 0 }
        let encoded = try packed(array)
        #expect(encoded.starts(with: arrayHead))
        #expect(encoded.count == arrayHead.count + count)
        #expect(try unpacked([Bool].self, encoded) == array)
        let map = Dictionary(uniqueKeysWithValues: (0..<count).map { ($0, $0 % 2 == 0) })
        let encodedMap = try packed(map)
        #expect(encodedMap.starts(with: mapHead))
        #expect(try unpacked([Int: Bool].self, encodedMap) == map)
        #expect(try unpacked(Set<Int>.self, packed(Set(map.keys))) == Set(map.keys))
    }

    @Test(
        "extension values take their smallest heads and come back",
        arguments: [0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 65_536]
    )
    func extended(count: Int) throws {
        let value = PackValue.extended(type: -5, [UInt8](repeating: 3, count: count))
        let encoded = try packed(value)
        let head = [1: 2, 2: 2, 4: 2, 8: 2, 16: 2][count] ?? (count < 256 ? 3 : count < 65_536 ? 4 : 6)
        #expect(encoded.count == head + count)
        #expect(try unpacked(PackValue.self, encoded) == value)
    }

    @Test("floating point keeps every bit")
    func floatingPoint() throws {
        for value in [0.0, -0.0, 1.5, .infinity, -.infinity, .leastNonzeroMagnitude, .greatestFiniteMagnitude, .nan] {
            #expect(try unpacked(Double.self, packed(value)).bitPattern == value.bitPattern)
            #expect(try unpacked(Float.self, packed(Float(value))).bitPattern == Float(value).bitPattern)
        }
        #expect(try packed(Float(1)) == [0xCA, 0x3F, 0x80, 0, 0])
        #expect(try packed(1.0) == [0xCB, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0])
    }

    @Test("texts of every plane come back", arguments: ["é", "日本語", "👩‍👩‍👧‍👦", "a\0b", "e\u{301}", "\u{10FFFF}"])
    func texts(text: String) throws {
        let back = try unpacked(String.self, packed(text))
        #expect(Array(back.utf8) == Array(text.utf8))
        #expect(
            try unpacked(String.self, packed(String(repeating: text, count: 40))).utf8.count == text.utf8.count * 40
        )
    }

    @Test("durations come back to the attosecond")
    func durations() throws {
        for value in [
            Duration.zero, .seconds(-1.5), .nanoseconds(7),
            Duration(secondsComponent: 1 << 40, attosecondsComponent: 3),
        ] {
            #expect(try unpacked(Duration.self, packed(value)) == value)
        }
    }

    @Test("no bytes make a duration that can't be taken apart, and one that can't isn't sent")
    func longDurations() throws {
        for value in [Duration.seconds(Int64.max), .seconds(Int64.min), .seconds(-3) + .nanoseconds(-1)] {
            #expect(try unpacked(Duration.self, packed(value)) == value)
        }
        for value in [Duration.seconds(Int64.max) + .nanoseconds(1), .seconds(Int64.min) * 2] {
            let error = #expect(throws: CodecError.self) { try packed(value) }
            #expect(error?.code == .overflow)
            #expect(throws: CodecError.self) { try packed([value]) }
        }
        let second: Int64 = 1_000_000_000_000_000_000
        for parts in [
            [Int64.max, Int64.max], [.min, .min], [.max, 1], [.min, -1], [0, second], [0, -second], [1, -1], [-1, 1],
            [0, .min],
        ] {
            let error = #expect(throws: CodecError.self) { try unpacked(Duration.self, packed(parts)) }
            #expect(error?.code == .overflow)
        }
        #expect(
            try unpacked(Duration.self, packed([0, 1 - second]))
                == Duration(secondsComponent: 0, attosecondsComponent: 1 - second)
        )
    }

    @Test("a unit is nil")
    func unit() throws {
        #expect(try packed(Nothing()) == [0xC0])
        #expect(try unpacked(Nothing.self, [0xC0]) == Nothing())
        #expect(throws: CodecError.self) { try unpacked(Nothing.self, [0x01]) }
    }

    @Test("the limit of bytes holds exactly, and the header doesn't count")
    func byteLimit() throws {
        let limits = CodecLimits(maxBytes: 100)
        for headerBytes in [0, 24] {
            var writer = PackWriter(capacity: 1_000, headerBytes: headerBytes, limits: limits)
            try writer.pack(String(repeating: "x", count: 98))
            #expect(writer.count == headerBytes + 100)
            let error = #expect(throws: CodecError.self) { try writer.packNil() }
            #expect(error?.code == .tooLarge)
            #expect(writer.count == headerBytes + 100)
        }
        #expect(throws: CodecError.self) { try packed(String(repeating: "x", count: 99), limits: limits) }
        #expect(throws: CodecError.self) { try packed([[1, 2, 3]], limits: CodecLimits(maxBytes: 3)) }
        #expect(throws: CodecError.self) {
            try packed([Int](repeating: 1, count: 17), limits: CodecLimits(maxCount: 16))
        }
    }

    @Test("deep values are refused")
    func depthLimit() throws {
        #expect(try packed([[[1]]], limits: CodecLimits(maxDepth: 3)) == [0x91, 0x91, 0x91, 1])
        let error = #expect(throws: CodecError.self) { try packed([[[1]]], limits: CodecLimits(maxDepth: 2)) }
        #expect(error?.code == .tooDeep)
        var value = PackValue.nil
        for _ in 0..<65 { value = .array([value]) }
        #expect(throws: CodecError.self) { try packed(value) }
    }

    @Test("the block is handed over whole, and can be given to C")
    func handOver() throws {
        var writer = PackWriter(capacity: 1, headerBytes: 24)
        for number in 0..<1_000 { try writer.pack(UInt64(number)) }
        let block = writer.finish()
        #expect(block.bytes.prefix(24).allSatisfy { $0 == 0 })
        #expect(block.bytes[24] == 0)
        #expect(block.bytes[25] == 1)
        let count = block.count
        let bytes = block.release()
        #expect(bytes.count == count)
        free(bytes.baseAddress)
    }

    @Test("what failed can be taken back")
    func rollBack() throws {
        var writer = PackWriter(capacity: 16, limits: CodecLimits(maxDepth: 1))
        try writer.pack("kept")
        let mark = writer.count
        #expect(throws: CodecError.self) { try packValue([[1]], into: &writer) }
        writer.rollBack(to: mark)
        try packValue([1], into: &writer)
        #expect(writer.withBytes { [UInt8]($0) } == [0xA4] + Array("kept".utf8) + [0x91, 1])
    }
}
