// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverCodec

@Suite("The shared table of types")
struct SharedTypeTableTests {
    private final class Entry: Sendable {
        let name: String
        init(_ name: String) { self.name = name }
    }

    /// Types enough to make the table grow several times.
    private static let types: [Any.Type] = {
        func nested<Value>(_ type: Value.Type, _ depth: Int) -> [Any.Type] {
            depth == 0 ? [type] : [type] + nested([Value].self, depth - 1) + nested(Value?.self, depth - 1)
        }
        return nested(Int.self, 5) + nested(String.self, 5)
    }()

    @Test("each type has one object, made once")
    func once() {
        let table = SharedTypeTable()
        var made = 0
        for _ in 0..<3 {
            for type in Self.types {
                let entry = table.entry(of: type) {
                    made += 1
                    return Entry("\(type)")
                }
                #expect(entry.name == "\(type)")
            }
        }
        #expect(made == Self.types.count)
    }

    @Test("threads that ask at once get the same objects", .timeLimit(.minutes(5)))
    func atOnce() async {
        let table = SharedTypeTable()
        let all = await withTaskGroup(of: [ObjectIdentifier].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    Self.types.map { type in ObjectIdentifier(table.entry(of: type) { Entry("\(type)") }) }
                }
            }
            return await group.reduce(into: []) { all, objects in all.append(objects) }
        }
        #expect(all.count == 8)
        #expect(Set(all).count == 1)
        #expect(Set(all[0]).count == Self.types.count)
    }
}
