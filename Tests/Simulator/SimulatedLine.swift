// SPDX-License-Identifier: Apache-2.0

import DroverCore
import DroverWire

/// A piece of a large packet, or its header, which is the first.
package struct PacketPart: Sendable {
    let transfer: UInt64
    /// The packet's, for the first.
    let message: Header?
    let offset: Int
    let count: Int
    let content: Packet?
}

/// One end of a connection: what it sends and receives in parts, as the loops do it by the same machines.
final class SimulatedLine {
    private var outgoing = PartQueue<Packet>()
    private var incoming = PartAssembly<Packet?>()
    /// Packets that wait for others, by the numbers that stand for their bytes.
    private var kept: [UInt64: Packet] = [:]
    private var lastKept: UInt64 = 0
    /// The session that the other side's last welcome named.
    private var theirSession: UInt32?

    /// How many packets are under way in parts, or wait behind such.
    var count: Int { self.outgoing.count + self.incoming.count }

    // MARK: Sending

    /// Takes a packet that must go in parts, or wait for such; false if it may go at once.
    func takes(_ packet: Packet, bytes: Int, isBehindEvents: Bool) -> Bool {
        let isLarge = bytes > 1 << 20
        switch packet {
        case .request(var header, let key, _) where isLarge || key.map { self.isUnderWay($0) } == true:
            header.payloadLength = UInt32(bytes)
            // Those with a limit are small: their times count from stamps.
            self.outgoing.add(header, deadline: nil, packet, in: key.map { .key(Self.hash(of: $0)) })
        case .answer(let id, _, _):
            guard isLarge else {
                guard self.outgoing.keepsOrder else { return false }
                return self.keeps(packet) { self.outgoing.hold($0, of: id, isBehindEvents: isBehindEvents) }
            }
            let header = Header(.reply, payloadLength: UInt32(bytes), id: id)
            self.outgoing.add(header, deadline: nil, packet, isBehindEvents: isBehindEvents)
        case .event(let number, let sequence, _):
            let header = Header(.event, payloadLength: UInt32(bytes), id: sequence, number: number)
            return self.takes(packet, header, isLarge: isLarge, of: number)
        case .invoke(let number, let id, _):
            let header = Header(.invoke, payloadLength: UInt32(bytes), id: id, number: number)
            return self.takes(packet, header, isLarge: isLarge, of: number)
        case .ended(let number), .emitted(let number, _): return self.holds(packet, of: number)
        case .cancel(let id):
            self.outgoing.cancel({ $0 == .request }, id: id)
            self.incoming.cancel({ $0 == .reply }, id: id)
            return false
        default: return false
        }
        return true
    }

    private static func hash(of key: String) -> UInt64 { UInt64(key.utf8.first ?? 0) }

    private func isUnderWay(_ key: String) -> Bool { self.outgoing.isUnderWay(.key(Self.hash(of: key))) }

    private func takes(_ packet: Packet, _ header: Header, isLarge: Bool, of number: UInt32) -> Bool {
        guard isLarge else { return self.holds(packet, of: number) }
        self.outgoing.add(header, deadline: nil, packet)
        return true
    }

    private func holds(_ packet: Packet, of number: UInt32) -> Bool {
        guard self.outgoing.keepsOrder else { return false }
        return self.keeps(packet) { self.outgoing.hold($0, in: .subscription(number)) }
    }

    private func keeps(_ packet: Packet, _ hold: ([UInt8]) -> Bool) -> Bool {
        let number = self.lastKept + 1
        guard hold((0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }) else { return false }
        self.lastKept = number
        self.kept[number] = packet
        return true
    }

    /// What may go now, with the bytes that it takes.
    func next(at now: Instant) -> [(packet: Packet, bytes: Int)] {
        switch self.outgoing.next(at: now) {
        case nil: return []
        case .ended(let transfer): return [(.partEnded(transfer), 48)]
        case .header(let message, let transfer):
            let part = PacketPart(transfer: transfer, message: message, offset: 0, count: 0, content: nil)
            return [(.part(part), 48)]
        case .payload(let packet, let range, let transfer, let end):
            let offset = end - range.count
            let part = PacketPart(
                transfer: transfer,
                message: nil,
                offset: offset,
                count: range.count,
                content: packet
            )
            return [(.part(part), range.count)]
        case .messages(let bytes):
            return stride(from: 0, to: bytes.count, by: 8)
                .compactMap { start in
                    let number = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[start + $1]) << (8 * UInt64($1)) }
                    return self.kept.removeValue(forKey: number).map { ($0, 64) }
                }
        }
    }

    func acknowledged(_ transfer: UInt64, end: Int, isWanted: Bool, at now: Instant) {
        self.outgoing.acknowledged(transfer, end: end, isWanted: isWanted, at: now)
    }

    // MARK: Receiving

    /// Takes a part.
    ///
    /// - Returns: The packet, if it is whole now, and what to answer.
    func take(_ part: PacketPart, at now: Instant) throws(Violation) -> (whole: Packet?, answer: Packet) {
        if let message = part.message {
            let deadline = Instant(deadlineAfter: message.time, at: now)
            let before = self.incoming.count
            let dropped = self.incoming.begin(part.transfer, message, deadline: deadline, in: nil)
            try check(
                dropped == 0 || before < PartQueue<Packet>.mostAtOnce,
                "a fifth transfer was begun, and one dropped that may live"
            )
            return (nil, .partTaken(part.transfer, end: Header.byteCount, isWanted: true))
        }
        let end = part.offset + part.count
        let place: PartAssembly<Packet?>.Place?
        do throws(WireError) {
            place = try self.incoming.place(
                part.transfer,
                offset: part.offset,
                count: part.count,
                countedFrom: now,
                at: now
            )
        } catch {
            throw Violation("a part doesn't fit: \(error)")
        }
        guard let place else { return (nil, .partTaken(part.transfer, end: end, isWanted: false)) }
        let answer = Packet.partTaken(part.transfer, end: end, isWanted: true)
        guard let header = place.whole else { return (nil, answer) }
        if case .request(_, let key, let token) = part.content {
            return (.request(header, key: key, token: token), answer)
        }
        return (part.content, answer)
    }

    /// The other side gave a packet up that it had begun.
    func endTheirs(_ transfer: UInt64) { self.incoming.end(transfer) }

    /// The other side wants a request no more.
    func cancelTheirs(_ id: UInt64) {
        self.outgoing.cancel({ $0 == .reply }, id: id)
        self.incoming.cancel({ $0 == .request }, id: id)
    }

    /// The other side has dropped a request's answer, of which parts may have come after this side had given it up.
    func cancelledByThem(_ id: UInt64) { self.incoming.cancel({ $0 == .reply }, id: id) }

    /// The other side introduces itself again: it sends again what has not come.
    func forgetIncoming() { self.incoming.reset() }

    /// The other side has answered an introduction; what came before the first answer of a session was of another one.
    func welcomed(by session: UInt32) {
        self.outgoing.reset(isSameConnection: true)
        self.kept.removeAll()
        if self.theirSession != session { self.incoming.reset() }
        self.theirSession = session
    }

    /// Another session begins.
    func forgetOutgoing() {
        self.outgoing.reset()
        self.kept.removeAll()
    }
}
