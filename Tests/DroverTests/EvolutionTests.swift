// SPDX-License-Identifier: Apache-2.0

import Drover
import Testing

/// The types of a program as they were; `Tests/FaultWorker/LaterBuild.swift` has them a version later.
private struct Parcel: Codable, Sendable {
    var number: Int
    var weight: Double
    var carrier: Carrier
}

private enum Carrier: String, Codable, Sendable { case van, train, pigeon }

private struct Receipt: Codable, Sendable {
    var text: String
}

private enum State: Codable, Sendable { case sent }

private enum Grade: String, Codable, Sendable { case standard }

extension ServingTests {
    /// Two builds of one program, of which one runs in a process of its own.
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct EvolutionTests {}
}

extension ServingTests.EvolutionTests {
    private static let send = Function<Parcel, Receipt>("send")
    private static let state = Function<Int, State>("state")
    private static let grade = Function<Grade>("grade")
    private static let parcels = Function<[Parcel]>("parcels")

    @Test("a caller of an earlier build understands a worker of a later one, or is told which field or case it lacks")
    func twoBuilds() throws {
        let worker = try WorkerProcess()
        let client = try Client.forTest(worker.endpoint)
        // A field was removed, two were added, one of the result's isn't known here.
        let receipt = try client.function(Self.send).blocking(Parcel(number: 7, weight: 2, carrier: .train))
        #expect(receipt.text == "7 by train, priority 1")
        // A raw value that the worker no longer knows.
        let refused = #expect(throws: RemoteError.self) {
            try client.function(Self.send).blocking(Parcel(number: 7, weight: 2, carrier: .pigeon))
        }
        #expect(refused?.code == .badArguments && refused?.execution == .didNotRun)
        #expect(refused?.message.contains("Carrier") == true && refused?.message.contains("pigeon") == true)
        // A case that the caller doesn't know yet.
        guard case .sent = try client.function(Self.state).blocking(1) else { return }
        let strange = #expect(throws: RemoteError.self) { try client.function(Self.state).blocking(2) }
        #expect(strange?.code == .badResult && strange?.execution == .ran)
        #expect(strange?.message.contains("State has no case \"delayed\"") == true)
        // A raw value that it doesn't know yet.
        let value = #expect(throws: RemoteError.self) { try client.function(Self.grade).blocking() }
        #expect(value?.code == .badResult && value?.execution == .ran)
        #expect(value?.message.contains("Grade") == true && value?.message.contains("express") == true)
        // A field that the worker no longer sends.
        let missing = #expect(throws: RemoteError.self) { try client.function(Self.parcels).blocking() }
        #expect(missing?.code == .badResult && missing?.execution == .ran)
        #expect(missing?.message.contains("the field \"weight\" of Parcel is missing") == true)
        client.closeBlocking()
        worker.end()
    }
}
