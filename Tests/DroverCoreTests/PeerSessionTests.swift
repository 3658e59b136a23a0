// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite struct PeerSessionTests {
    private static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private static func established() -> PeerSession {
        var session = PeerSession(limits: .standard)
        session.established(at: Self.at(0))
        return session
    }

    /// Ticks whenever the session asks for it; what came of it, and when.
    private static func events(_ session: inout PeerSession, until end: UInt64) -> [(UInt64, PeerSession.Action)] {
        var events: [(UInt64, PeerSession.Action)] = []
        while session.nextDeadline <= Self.at(end) {
            let now = session.nextDeadline
            let action = session.ticked(at: now)
            if action != .none { events.append((now.nanoseconds / 1_000_000, action)) }
        }
        return events
    }

    @Test("S87 a sign of life is shown every beat, and silence ends the session at its limit, once")
    func silence() {
        var session = Self.established()
        let events = Self.events(&session, until: 60_000)
        #expect(events.map { $0.0 } == [2000, 4000, 6000])
        #expect(events.map { $0.1 } == [.sendHeartbeat, .sendHeartbeat, .endSession(.silent)])
    }

    @Test("S87 signs of life go three times in what a less patient peer said, twenty times a second at most")
    func impatientPeer() {
        for (said, beat) in [(1500, 500), (0, 2000), (60_000, 2000), (1, 50)] as [(UInt64, UInt64)] {
            var session = Self.established()
            session.givenUp(afterNanoseconds: said * 1_000_000)
            let events = Self.events(&session, until: 60_000)
            #expect(events.first?.0 == beat && events.first?.1 == .sendHeartbeat, "it said \(said) ms")
            #expect(events.last?.0 == 6000 && events.last?.1 == .endSession(.silent))
        }
    }

    @Test("S87 anything heard counts as a sign of life, anything sent saves one")
    func traffic() {
        var session = Self.established()
        session.heard(at: Self.at(5000))
        session.sent(at: Self.at(5000))
        let events = Self.events(&session, until: 60_000)
        #expect(events.first?.0 == 7000)
        #expect(events.last?.0 == 11_000)
    }

    @Test("S87 signs of life of many sessions go together, a little early, and silence ends each at its own time")
    func grid() {
        var limits = PeerSession.Limits.standard
        limits.gridNanoseconds = 125_000_000
        var times: Set<UInt64> = []
        for start in stride(from: UInt64(0), to: 120, by: 10) {
            var session = PeerSession(limits: limits)
            session.established(at: Self.at(10_000 + start))
            let events = Self.events(&session, until: 60_000)
            times.insert(events[0].0)
            #expect(events[0].1 == .sendHeartbeat)
            #expect(events.last?.0 == 16_000 + start)
            #expect(events.last?.1 == .endSession(.silent))
        }
        #expect(times == [12_000])
    }

    @Test("S87 a sign of life that comes is answered by one that is due soon, so that both sides wake once")
    func answeredBeat() {
        var session = Self.established()
        #expect(session.beatReceived(at: Self.at(1400)) == .none)
        #expect(session.beatReceived(at: Self.at(1600)) == .sendHeartbeat)
        #expect(session.beatReceived(at: Self.at(1601)) == .none)
        session.heard(at: Self.at(1601))
        #expect(Self.events(&session, until: 3700).map { $0.0 } == [3600])
    }

    @Test("S87 a peer that closed the connection and isn't back within a second is lost, once")
    func closed() {
        var session = Self.established()
        _ = session.ticked(at: Self.at(1000))
        session.heard(at: Self.at(1100))
        _ = session.disconnected(at: Self.at(1200))
        // Of each try that fails the shell says the same.
        _ = session.disconnected(at: Self.at(1350))
        let events = Self.events(&session, until: 60_000)
        #expect(events.map { $0.0 } == [2200])
        #expect(events.map { $0.1 } == [.endSession(.disconnected)])
    }

    @Test("S87 a connection that comes and goes loses nobody, as long as it is back within a second each time")
    func flapping() {
        var session = Self.established()
        for flap in 0..<200 {
            let start = 1000 + UInt64(flap) * 1000
            _ = session.disconnected(at: Self.at(start))
            #expect(Self.events(&session, until: start + 990).isEmpty)
            #expect(session.connected(at: Self.at(start + 995)) == .sendHello)
            // Every other time it goes again before the answer has come.
            if flap.isMultiple(of: 2) { session.established(at: Self.at(start + 999)) }
        }
        #expect(Self.events(&session, until: 205_000).allSatisfy { $0.1 != .endSession(.disconnected) })
    }

    @Test("S87 an introduction on a connection that is back has the silence limit to be answered")
    func backButSilent() {
        var session = Self.established()
        _ = session.disconnected(at: Self.at(1000))
        _ = session.connected(at: Self.at(1900))
        #expect(Self.events(&session, until: 20_000).last?.0 == 6000)
    }

    @Test("S87 a connection that this side's kernel gave up, since nothing was acknowledged, is silence")
    func givenUp() {
        var session = Self.established()
        _ = session.ticked(at: Self.at(2000))
        _ = session.ticked(at: Self.at(4000))
        _ = session.disconnected(at: Self.at(4500))
        let events = Self.events(&session, until: 60_000)
        #expect(events.map { $0.0 } == [6000])
        #expect(events.map { $0.1 } == [.endSession(.silent)])
    }

    @Test(
        "S87 a pause of this side is none of the second that a peer has to come back",
        arguments: [600, 5000] as [UInt64]
    )
    func stallSinceClosing(pause: UInt64) {
        var session = Self.established()
        session.heard(at: Self.at(1000))
        _ = session.disconnected(at: Self.at(1000))
        #expect(session.ticked(at: Self.at(1250)) == .none)
        #expect(session.ticked(at: Self.at(1250 + pause)) == .none)
        #expect(Self.events(&session, until: 60_000).map { $0.0 } == [2000 + pause])
    }

    @Test("S87 a side that stood still while its peer closed the connection gives it a beat to be heard")
    func stallBeforeClosing() {
        var session = Self.established()
        _ = session.ticked(at: Self.at(1000))
        _ = session.disconnected(at: Self.at(50_000))
        #expect(Self.events(&session, until: 60_000).map { $0.0 } == [52_000])
    }

    @Test("S86 a peer that was never there is not lost")
    func neverThere() {
        var session = PeerSession(limits: .standard)
        _ = session.disconnected(at: Self.at(0))
        _ = session.connected(at: Self.at(100))
        _ = session.disconnected(at: Self.at(200))
        #expect(session.nextDeadline == .distantFuture)
    }

    @Test("S87 a pause of this side says nothing about the peer", arguments: [4500, 6000, 100_000] as [UInt64])
    func stall(pause: UInt64) {
        var session = Self.established()
        _ = session.ticked(at: Self.at(1900))
        let end = 1900 + pause
        #expect(session.ticked(at: Self.at(end)) == .sendHeartbeat)
        session.heard(at: Self.at(end + 1))
        #expect(session.ticked(at: Self.at(end + 1000)) == .none)
        #expect(session.isEstablished)
    }

    @Test("S87 a side that sends all the time is not taken for one that stood still")
    func busySender() {
        var session = Self.established()
        var now: UInt64 = 0
        while session.isEstablished, now < 20_000 {
            now += 100
            session.sent(at: Self.at(now))
            if session.nextDeadline <= Self.at(now) { _ = session.ticked(at: Self.at(now)) }
        }
        #expect(now == 6000)
    }

    @Test("S87 after a pause a peer that stays silent is lost one beat later")
    func stallAndSilence() {
        var session = Self.established()
        _ = session.ticked(at: Self.at(1000))
        _ = session.ticked(at: Self.at(50_000))
        #expect(Self.events(&session, until: 60_000).last?.0 == 52_000)
    }

    @Test("S88 introductions are repeated with growing pauses, for ever if there was no session")
    func introduction() {
        var session = PeerSession(limits: .standard)
        #expect(session.connected(at: Self.at(0)) == .sendHello)
        let events = Self.events(&session, until: 20_000)
        #expect(events.map { $0.0 } == [100, 300, 700, 1500, 3100, 6300, 12_300, 18_300])
    }

    @Test("S88 an introduction after a session is given up when the peer was silent for the limit")
    func introductionAfterSession() {
        var session = Self.established()
        _ = session.disconnected(at: Self.at(1000))
        #expect(session.connected(at: Self.at(1500)) == .sendHello)
        let events = Self.events(&session, until: 20_000)
        #expect(events.last?.0 == 6000)
        #expect(events.last?.1 == .endSession(.silent))
    }

    @Test("S88 a peer that does not know the session is introduced to again")
    func reset() {
        var session = Self.established()
        #expect(session.resetReceived(at: Self.at(10)) == .sendHello)
        #expect(session.resetReceived(at: Self.at(11)) == .none)
    }
}
