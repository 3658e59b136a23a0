// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ

/// The worker's side of one child process.
final class IsolatedChild: Sendable {
    let process: ChildProcess
    let link: ByteLink
    /// Ends a wait for the child.
    let waker: Waker

    /// How long a program may take to come to where it starts its worker.
    static let startLimit: Duration = .seconds(30)

    /// Starts a child.
    init(_ invitation: ChildServer.Invitation) throws(ZMQError) {
        let (own, its) = try ByteLink.pair()
        self.waker = try Waker()
        self.link = own
        // Its end is closed here when this returns, so that its death shows as the stream's end.
        self.process = try ChildProcess.startAgain(adding: invitation.variable, passing: its.descriptor)
    }

    /// Waits until the child serves.
    ///
    /// - Parameter worker: The worker's name, for the child's errors.
    /// - Throws: What the link throws.
    @available(*, noasync)
    func waitUntilReady(worker: String) throws(ByteLink.Failure) {
        let deadline = MonotonicClock.deadline(after: Self.startLimit)
        try unsafe Array(worker.utf8)
            .withUnsafeBufferPointer { text throws(ByteLink.Failure) in
                try unsafe ChildFrame(.begin).write(to: self.link, UnsafeRawBufferPointer(text), until: self.waker)
            }
        let frame = try ChildFrame(from: self.link, until: self.waker, deadline: deadline)
        if frame.kind != .ready { throw .ended }
    }
}
