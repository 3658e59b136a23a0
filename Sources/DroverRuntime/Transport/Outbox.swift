// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverZMQ

/// What is about to go out to one peer of a ROUTER: what gathers, and the frames that libzmq had no room for.
package struct Outbox: ~Copyable {
    /// Frames that wait, with the ones that belong to them; a class, since a deque holds no message itself.
    final class Parked {
        @safe @exclusivity(unchecked) var message: Message
        @safe @exclusivity(unchecked) var attached: Message?

        init(_ message: consuming Message, attached: consuming Message?) {
            self.message = message
            self.attached = attached
        }
    }

    /// libzmq's name of the connection.
    package var routingID: [UInt8]
    /// Which connection that is: once it is closed nothing goes out, since its name may be another's.
    package var connection = ConnectionMark()
    package var batch = OutgoingBatch()
    /// Whether the loop knows that something has gathered.
    package var isDirty = false
    private var parked = Deque<Parked>()

    package init(routingID: [UInt8]) { self.routingID = routingID }

    /// Whether frames wait for room in the socket.
    package var isBlocked: Bool { !self.parked.isEmpty }

    /// What was on its way by an old connection is gone, or will be asked for again.
    package mutating func forget() {
        self.parked.removeAll()
        self.batch.removeAll()
    }

    var firstParked: Parked? { self.parked.first }

    mutating func park(_ frame: consuming Message, attached: consuming Message?) {
        self.parked.append(Parked(frame, attached: attached))
    }

    mutating func unparkFirst() { self.parked.removeFirst() }
}
