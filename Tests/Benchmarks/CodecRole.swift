// SPDX-License-Identifier: Apache-2.0

import Drover

/// What a typed call costs in encoding and decoding, on both sides together, without a network between them.
enum CodecRole {
    private static let calls = 2_000_000
    private static let warmUp = 100_000
    /// Room for a header, as the client leaves it in front of the arguments.
    private static let headerBytes = 24

    /// A `(String) -> String` call: the client writes the arguments to a block of its own, the worker reads them and
    /// writes the result to a buffer that it uses again, the client reads the result.
    static func nanosecondsPerCall() throws -> Double {
        var reply = PackWriter(capacity: 256)
        var bytes = try self.run(self.warmUp, reply: &reply)
        let started = DroverRoles.now()
        bytes += try self.run(self.calls, reply: &reply)
        let elapsed = DroverRoles.now() - started
        guard bytes == 5 * (self.calls + self.warmUp) else { throw Failure("the answers are not the arguments") }
        return Double(elapsed) / Double(self.calls)
    }

    /// Makes so many calls; returns how many bytes their results have.
    private static func run(_ count: Int, reply: inout PackWriter) throws -> Int {
        var bytes = 0
        for number in 0..<count {
            var request = PackWriter(capacity: 72, headerBytes: self.headerBytes)
            try packArguments(number & 1 == 0 ? "hello" : "world", into: &request)
            let block = request.finish()
            let content = UnsafeRawBufferPointer(rebasing: block.bytes[self.headerBytes...])
            reply.removeAll()
            try withPackReader(over: content) { reader in
                let name = try unpackArguments(String.self, from: &reader)
                try reader.expectEnd()
                try packValue(name, into: &reply)
            }
            bytes +=
                try reply.withBytes { answer in
                    try withPackReader(over: answer) { reader in try unpackValue(String.self, from: &reader) }
                }
                .utf8.count
        }
        return bytes
    }
}
