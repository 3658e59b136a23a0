// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverCodec

@Suite("Argument packs")
struct ArgumentPackTests {
    @Test("arguments come back as they went")
    func roundTrip() throws {
        var writer = PackWriter(capacity: 16, headerBytes: 24)
        try packArguments("/etc/hosts", 7, [1.5, -2], [UInt8(1), 2], into: &writer)
        let block = writer.finish()
        #expect(block.count > 24)
        let bytes = [UInt8](block.bytes.dropFirst(24))
        let (path, number, list, data) = try withPackReader(over: bytes) { reader throws(CodecError) in
            let values = try unpackArguments(String.self, Int.self, [Double].self, [UInt8].self, from: &reader)
            try reader.expectEnd()
            return values
        }
        #expect(path == "/etc/hosts")
        #expect(number == 7)
        #expect(list == [1.5, -2])
        #expect(data == [1, 2])
    }

    @Test("no argument at all is an empty array")
    func noArguments() throws {
        var writer = PackWriter(capacity: 16)
        try packArguments(into: &writer)
        #expect(writer.withBytes { [UInt8]($0) } == [0x90])
        try withPackReader(over: [0x90]) { reader throws(CodecError) in
            try unpackArguments(from: &reader)
        }
    }

    @Test("a wrong argument is named by its number, its place and both kinds")
    func wrongArgument() throws {
        var writer = PackWriter(capacity: 16)
        try packArguments(1, ["a", "b"], into: &writer)
        let bytes = writer.withBytes { [UInt8]($0) }
        let error = #expect(throws: CodecError.self) {
            try withPackReader(over: bytes) { reader throws(CodecError) in
                try unpackArguments(Int.self, [Int].self, from: &reader)
            }
        }
        #expect(error?.code == .typeMismatch)
        #expect(error?.argument == 2)
        #expect("\(try #require(error))" == "argument 2, [0]: expected an integer, found a string")
    }

    @Test("a wrong number of arguments names both numbers")
    func wrongCount() {
        let error = #expect(throws: CodecError.self) {
            try withPackReader(over: [0x92, 1, 2]) { reader throws(CodecError) in
                try unpackArguments(Int.self, from: &reader)
            }
        }
        #expect(error?.code == .countMismatch)
        #expect(error?.message.contains("takes 1 argument, the call has 2") == true)
    }
}
