// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverCodec

/// The types of a program as it was.
private enum Before {
    struct Parcel: Codable, Equatable {
        var number: Int
        var weight: Double
        var state: State
    }

    enum State: String, Codable { case packed, sent }

    enum Event: Codable, Equatable {
        case opened
        case moved(to: String)
    }
}

/// The types of the same program, a version later.
private enum After {
    struct Parcel: Codable, Equatable {
        var number: Int
        var state: State
        var note: String?
        var priority: Int
    }

    enum State: String, Codable { case packed, sent, lost }

    enum Event: Codable, Equatable {
        case opened
        case moved(to: String)
        case weighed(grams: Int)
        case closed
    }
}

extension After.Parcel {
    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.number = try container.decode(Int.self, forKey: .number)
        self.state = try container.decode(After.State.self, forKey: .state)
        self.note = try container.decodeIfPresent(String.self, forKey: .note)
        self.priority = try container.decodeIfPresent(Int.self, forKey: .priority) ?? 1
    }
}

/// A field with a default whose type has no `init(from:)` of its own.
private struct Plain: Codable, Equatable {
    var number: Int
    var priority = 1
}

@Suite("Types that change")
struct EvolutionTests {
    @Test("a field that was added as an optional, or with a default in init(from:), may be missing")
    func addedFields() throws {
        let bytes = try packed(Before.Parcel(number: 7, weight: 2, state: .sent))
        #expect(try unpacked(After.Parcel.self, bytes) == After.Parcel(number: 7, state: .sent, note: nil, priority: 1))
    }

    @Test("fields that the other side doesn't know are passed over")
    func unknownFields() throws {
        struct Wider: Codable {
            var number = 7
            var extra = ["a": [1, 2]]
            var weight = 2.0
            var state = "sent"
            var last = [Before.Parcel(number: 1, weight: 1, state: .packed)]
        }
        let parcel = Before.Parcel(number: 7, weight: 2, state: .sent)
        #expect(try unpacked(Before.Parcel.self, packed(Wider())) == parcel)
        #expect(try unpacked([Before.Parcel].self, packed([Wider(), Wider()])) == [parcel, parcel])
    }

    @Test("a field that was removed is missed by name and type on the side that needs it")
    func removedFields() throws {
        let bytes = try packed(["parcels": [After.Parcel(number: 7, state: .sent, note: "x", priority: 3)]])
        let error = try #require(throws: CodecError.self) { try unpacked([String: [Before.Parcel]].self, bytes) }
        #expect(error.code == .missingField)
        #expect(error.path == ["parcels", "[0]"])
        #expect(error.message.contains("the field \"weight\" of Parcel is missing"))
    }

    @Test("a default in the declaration alone doesn't help: the field is missed by name and type")
    func defaultsOfDeclarations() throws {
        let error = try #require(throws: CodecError.self) { try unpacked(Plain.self, packed(["number": 1])) }
        #expect(error.code == .missingField)
        #expect("\(error)".contains("the field \"priority\" of Plain is missing"))
    }

    @Test("a case that the other side doesn't know is told by its name and its type")
    func unknownCases() throws {
        let known = try unpacked([Before.Event].self, packed([After.Event.opened, .moved(to: "here")]))
        #expect(known == [.opened, .moved(to: "here")])
        for (event, name) in [(After.Event.weighed(grams: 3), "weighed"), (.closed, "closed")] {
            let bytes = try packed(["events": [.opened, event]])
            let error = try #require(throws: CodecError.self) { try unpacked([String: [Before.Event]].self, bytes) }
            #expect(error.code == .unknownCase)
            #expect(error.path == ["events", "[1]"])
            #expect(error.message.contains("Event has no case \"\(name)\""))
        }
    }

    @Test("a raw value that the other side doesn't know is told with its type")
    func unknownRawValues() throws {
        let parcel = After.Parcel(number: 7, state: .lost, note: nil, priority: 1)
        struct State: Codable { var state: Before.State }
        let error = try #require(throws: CodecError.self) { try unpacked(State.self, packed(parcel)) }
        #expect(error.code == .unknownCase)
        #expect(error.path == ["state"])
        #expect(error.message.contains("State"))
        #expect(error.message.contains("lost"))
    }

    @Test("what decoding that failed has learned doesn't disturb the next")
    func afterFailures() throws {
        let good = try packed([Before.Event.moved(to: "there"), .opened])
        let bad = try packed([After.Event.closed])
        for _ in 0..<3 {
            #expect(throws: CodecError.self) { try unpacked([Before.Event].self, bad) }
            #expect(try unpacked([Before.Event].self, good) == [.moved(to: "there"), .opened])
        }
    }
}
