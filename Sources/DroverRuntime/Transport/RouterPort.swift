// SPDX-License-Identifier: Apache-2.0

package import DroverWire
package import DroverZMQ
package import Logging

/// The ROUTER socket of a worker or a broker: the frame that was received last, and what goes out.
///
/// Belongs to the loop, like the socket in it: one thread at a time.
package final class RouterPort {
    /// What was received.
    package enum Arrival {
        /// A message that isn't framed as the protocol says; it was read to its end.
        case malformed(WireError)
        /// A frame, in ``RouterPort/message``, and the one that belongs to it, if any, in ``RouterPort/attached``.
        case frame
    }

    /// What became of a frame.
    package enum Sending {
        case sent
        /// It is the first that libzmq has no room for: the peer is blocked from now on.
        case blocked
        /// It waits behind others.
        case waiting
        /// The peer's connection is gone, and so is the frame.
        case gone
    }

    /// What ended a wait.
    package struct WakeUp {
        package let isSignalled: Bool
        package let monitorHasNews: Bool
        /// The system couldn't wait; that was logged.
        package let hasFailed: Bool
    }

    @safe @exclusivity(unchecked) package var socket: Socket
    /// Tells of connections; nil if there is nothing to be told, or if it failed.
    @safe @exclusivity(unchecked) package var monitor: Monitor?
    private let descriptor: CInt
    private let monitorDescriptor: CInt
    private let logger: Logger
    @safe @exclusivity(unchecked) private var poll = DescriptorPoll(capacity: 3)
    /// The socket was used last by a receive that found nothing.
    @safe @exclusivity(unchecked) private var isDrained = false
    /// Whom the last frame came from.
    @safe @exclusivity(unchecked) package private(set) var route = Message()
    @safe @exclusivity(unchecked) package private(set) var message = Message()
    @safe @exclusivity(unchecked) package private(set) var attached = Message()
    /// How many bytes are attached to the last frame; nil if none can be.
    @safe @exclusivity(unchecked) package private(set) var attachedByteCount: Int?
    @safe @exclusivity(unchecked) package var frames = FramePool()

    @available(*, noasync)
    package init(socket: consuming Socket, monitor: consuming Monitor?, logger: Logger) throws(ZMQError) {
        self.descriptor = try socket.get(.fileDescriptor)
        switch consume monitor {
        case .some(let monitor):
            self.monitorDescriptor = try monitor.fileDescriptor
            self.monitor = consume monitor
        case .none:
            self.monitorDescriptor = -1
            self.monitor = nil
        }
        self.socket = socket
        self.logger = logger
    }

    /// Another thread uses the sockets from now on.
    @available(*, noasync)
    package func moveToCurrentThread() {
        self.socket.moveToCurrentThread()
        self.monitor?.moveToCurrentThread()
    }

    // MARK: Receiving

    /// Receives what is there.
    ///
    /// - Parameters:
    ///   - limit: How many messages at most.
    ///   - take: Is called with each, and whether it is the first.
    /// - Returns: Whether there was any.
    @available(*, noasync)
    package func receive(atMost limit: Int, _ take: (Arrival, _ isFirst: Bool) -> Void) -> Bool {
        var count = 0
        do throws(ZMQError) {
            while count < limit, let arrival = try self.next() {
                take(arrival, count == 0)
                count += 1
            }
        } catch {
            self.logger.warning("a receive failed", metadata: [LogKeys.error: "\(error)"])
        }
        return count > 0
    }

    @available(*, noasync)
    private func next() throws(ZMQError) -> Arrival? {
        guard try self.socket.receive(into: &self.route) else {
            self.isDrained = true
            return nil
        }
        self.attachedByteCount = nil
        guard self.route.hasMore else { return .malformed(WireError(.badFraming, "a message without a frame")) }
        _ = try self.socket.receive(into: &self.message)
        guard self.message.hasMore else { return .frame }
        _ = try self.socket.receive(into: &self.attached)
        self.attachedByteCount = self.attached.count
        guard self.attached.hasMore else { return .frame }
        while self.attached.hasMore { _ = try self.socket.receive(into: &self.attached) }
        return .malformed(WireError(.badFraming, "a message of more than two frames"))
    }

    /// Where the last frame came from, as a number.
    package var routeKey: UInt64 { self.numberedRoute ?? self.hashedRoute }

    /// The number in an id that libzmq gave; nil if the peer chose its id.
    package var numberedRoute: UInt64? {
        unsafe self.route.withUnsafeBytes { bytes in
            // The ids that libzmq gives are a zero byte and a number.
            guard bytes.count == 5, unsafe bytes[0] == 0 else { return nil }
            return unsafe UInt64(bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
        }
    }

    /// A number for an id that the peer chose.
    package var hashedRoute: UInt64 {
        unsafe self.route.withUnsafeBytes { unsafe UInt64(hashOfRoute: $0) }
    }

    /// Takes the last frame out, to be kept.
    ///
    /// - Parameter isAskedAgain: Whether ``message`` will still be asked for its properties.
    /// - Returns: Its box.
    package func takeMessage(isAskedAgain: Bool) -> MessageBox {
        MessageBox(isAskedAgain ? self.message.share() : self.message.take())
    }

    /// Takes the attached frame out, to be kept.
    package func takeAttached() -> MessageBox { MessageBox(self.attached.take()) }

    // MARK: Sending

    /// Sends a frame, behind those that wait.
    package func put(_ frame: consuming Message, attached: consuming Message?, to peer: inout Outbox) -> Sending {
        guard !peer.isBlocked else {
            peer.park(frame, attached: attached)
            return .waiting
        }
        switch self.tryToSend(&frame, &attached, to: peer) {
        case .sent: return .sent
        case .gone: return .gone
        case .full:
            peer.park(frame, attached: attached)
            return .blocked
        }
    }

    /// Sends what waits for a peer.
    ///
    /// - Returns: Whether nothing waits any more, and how many frames went to a connection that is gone.
    package func unpark(_ peer: inout Outbox) -> (isFree: Bool, lost: Int) {
        var lost = 0
        while let first = peer.firstParked {
            switch self.tryToSend(&first.message, &first.attached, to: peer) {
            case .full: return (false, lost)
            case .gone: lost += 1
            case .sent: break
            }
            peer.unparkFirst()
        }
        return (true, lost)
    }

    /// Sends a frame at once, before those that wait; one that libzmq has no room for is dropped.
    package func tryToSend(_ frame: consuming Message, to peer: borrowing Outbox) -> Attempt {
        var nothing: Message?
        return self.tryToSend(&frame, &nothing, to: peer)
    }

    /// Sends a frame at once, to a peer that may have no session; one that libzmq has no room for is dropped.
    package func sendDirectly(_ frame: consuming Message, to routingID: [UInt8]) -> Attempt {
        var nothing: Message?
        return self.tryToSend(&frame, &nothing, to: routingID)
    }

    /// What became of a frame that doesn't wait.
    package enum Attempt { case sent, full, gone }

    private func tryToSend(_ frame: inout Message, _ attached: inout Message?, to peer: borrowing Outbox) -> Attempt {
        guard !peer.connection.isClosed else { return .gone }
        return self.tryToSend(&frame, &attached, to: peer.routingID)
    }

    private func tryToSend(_ frame: inout Message, _ attached: inout Message?, to routingID: [UInt8]) -> Attempt {
        do throws(ZMQError) {
            var address = Message(copying: routingID)
            self.isDrained = false
            guard try self.socket.send(&address, more: true) else { return .full }
            // Once the route is accepted, so are the frames: libzmq has room for whole messages or none.
            if var second = attached.take() {
                _ = try self.socket.send(&frame, more: true)
                _ = try self.socket.send(&second)
            } else {
                _ = try self.socket.send(&frame)
            }
            return .sent
        } catch {
            // The connection is gone. If the peer comes back, it asks for what it missed; if not, the silence limit
            // decides.
            return .gone
        }
    }

    // MARK: Sleeping

    /// Whether the socket waits for something to happen.
    @available(*, noasync)
    package var isQuiet: Bool {
        if self.isDrained { return true }
        do throws(ZMQError) {
            self.isDrained = !(try self.socket.get(.events).contains(.readable))
        } catch {
            self.logger.warning("a look at the socket failed", metadata: [LogKeys.error: "\(error)"])
            self.isDrained = true
        }
        return self.isDrained
    }

    /// Waits until something happens to the socket, its monitor or the waker.
    ///
    /// - Parameters:
    ///   - waker: The waker's descriptor; nil to wait without it and without the monitor.
    ///   - milliseconds: How long at most.
    /// - Returns: What ended the wait.
    @available(*, noasync)
    package func wait(waker: CInt?, milliseconds: Int) -> WakeUp {
        self.poll.removeAll()
        let waker = waker.map { self.poll.add($0) }
        _ = self.poll.add(self.descriptor)
        let monitor = waker == nil || self.monitor == nil ? nil : self.poll.add(self.monitorDescriptor)
        var hasFailed = false
        do throws(ZMQError) {
            try self.poll.wait(milliseconds: milliseconds)
        } catch {
            hasFailed = true
            self.logger.warning("a poll failed", metadata: [LogKeys.error: "\(error)"])
        }
        return WakeUp(
            isSignalled: waker.map { self.poll.isReady($0) } ?? false,
            monitorHasNews: monitor.map { self.poll.isReady($0) } ?? false,
            hasFailed: hasFailed
        )
    }
}
