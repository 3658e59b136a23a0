// SPDX-License-Identifier: Apache-2.0

import Drover

/// The types of a program a version later than in the tests: `Tests/DroverTests/EvolutionTests.swift` has them as they were.
enum LaterBuild {
    /// `weight` was removed, `note` and `priority` were added.
    struct Parcel: Codable, Sendable {
        var number: Int
        var carrier: Carrier
        var note: String?
        var priority: Int
    }

    /// Was also by pigeon.
    enum Carrier: String, Codable, Sendable { case van, train }

    /// `position` was added.
    struct Receipt: Codable, Sendable {
        var text: String
        var position: [Double]
    }

    enum State: Codable, Sendable {
        case sent
        case delayed(by: Double)
    }

    /// `express` was added.
    enum Grade: String, Codable, Sendable { case standard, express }

    static func register(on worker: Worker) {
        worker.register(Function<Parcel, Receipt>("send")) { (parcel: Parcel) in
            Receipt(text: "\(parcel.number) by \(parcel.carrier), priority \(parcel.priority)", position: [52.5, 13.4])
        }
        worker.register(Function<Int, State>("state")) { (number: Int) in number == 1 ? .sent : .delayed(by: 2) }
        worker.register(Function<Grade>("grade")) { () -> Grade in .express }
        worker.register(Function<[Parcel]>("parcels")) { () -> [Parcel] in
            [Parcel(number: 1, carrier: .train, note: "fragile", priority: 3)]
        }
    }
}

extension LaterBuild.Parcel {
    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.number = try container.decode(Int.self, forKey: .number)
        self.carrier = try container.decode(LaterBuild.Carrier.self, forKey: .carrier)
        self.note = try container.decodeIfPresent(String.self, forKey: .note)
        self.priority = try container.decodeIfPresent(Int.self, forKey: .priority) ?? 1
    }
}
