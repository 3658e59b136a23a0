// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import DroverZMQ

@Suite("Context", .timeLimit(.minutes(1)))
struct ContextTests {
    @Test("the library is new enough and has CURVE")
    func libraryIsNewEnough() {
        #expect(Context.libraryVersion >= Context.oldestSupportedVersion)
        #expect(Context.has("curve"))
        #expect(!Context.has("no such thing"))
    }

    @Test("versions compare by their parts", arguments: [(4, 3, 2), (4, 2, 9), (3, 9, 9)])
    func versionsCompare(major: Int, minor: Int, patch: Int) {
        #expect(Context.Version(major, minor, patch) < Context.oldestSupportedVersion)
    }

    @Test("after a shutdown operations say that the context is terminated")
    func shutdownEndsOperations() throws {
        let context = try Context()
        let socket = try Socket(.dealer, in: context)
        context.shutdown()
        context.shutdown()
        var message = Message()
        var received = false
        let error = thrown { () throws(ZMQError) in received = try socket.receive(into: &message) }
        #expect(error?.isTerminated == true)
        #expect(!received)
    }

    @Test("a terminated context gives no sockets, and may be ended again")
    func terminateIsIdempotent() throws {
        let context = try Context()
        context.terminate()
        context.terminate()
        context.shutdown()
        let error = thrown { () throws(ZMQError) in _ = try Socket(.dealer, in: context) }
        #expect(error?.isTerminated == true)
        #expect(error?.description.contains("make a new one") == true)
    }

    @Test("terminate ends another thread's poll and waits for its socket")
    func terminateWaitsForSockets() throws {
        let context = try Context()
        let ready = ReadySignal<Void>()
        let hasLeft = Counter()
        let thread = try LoopThread.start(named: "poller") {
            do {
                let socket = try Socket(.dealer, in: context)
                var poll = PollSet()
                _ = poll.add(socket)
                ready.set(())
                _ = try poll.wait(timeout: nil)
                // Depending on where the thread was, the poll reports the end itself or just returns.
                var message = Message()
                _ = try socket.receive(into: &message)
            } catch {
                if (error as? ZMQError)?.isTerminated == true { hasLeft.increment() }
            }
        }
        ready.wait()
        context.terminate()
        #expect(thread.join(within: .seconds(10)))
        #expect(hasLeft.value == 1)
    }

    @Test("one socket too many is an error that names the remedy")
    func tooManySockets() throws {
        let context = try Context(maxSockets: 2)
        let first = try Socket(.dealer, in: context)
        let second = try Socket(.dealer, in: context)
        let error = thrown { () throws(ZMQError) in _ = try Socket(.dealer, in: context) }
        #expect(error?.errno == EMFILE)
        #expect(error?.description.contains("ulimit -n") == true)
        _ = (first.kind, second.kind)
    }

    @Test("numbers out of range are refused", arguments: [-1, Int.max])
    func refusesBadOptions(value: Int) {
        let error = thrown { () throws(ZMQError) in _ = try Context(ioThreads: value) }
        #expect(error == ZMQError(errno: EINVAL, .setContextOption, "ioThreads"))
    }

    @Test("running out of descriptors is an error, not a crash")
    func descriptorExhaustion() async {
        await #expect(processExitsWith: .success) {
            func provoke() throws -> Bool {
                let context = try Context()
                // The I/O thread and its descriptors come with the first socket.
                let first = try Socket(.dealer, in: context)
                let taken = dup(0)
                var limit = rlimit(rlim_cur: rlim_t(taken + 4), rlim_max: rlim_t(taken + 4))
                guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return false }
                var wakers: [Waker] = []
                var wakerError: ZMQError?
                while wakerError == nil && wakers.count < 100 {
                    do throws(ZMQError) { wakers.append(try Waker()) } catch { wakerError = error }
                }
                var socketError: ZMQError?
                do throws(ZMQError) { _ = try Socket(.dealer, in: context) } catch { socketError = error }
                return first.kind == .dealer && wakerError?.errno == EMFILE && socketError?.errno == EMFILE
                    && socketError?.description.contains("ulimit -n") == true
            }
            exit((try? provoke()) == true ? 0 : 1)
        }
    }

    @Test("S104 the ids that a ROUTER gives can't be foreseen, and the program's own rand() goes on undisturbed")
    func routingIDsAreRandom() async {
        await #expect(processExitsWith: .success) {
            // A closure that isn't asynchronous: sockets stay on one thread.
            let isForeseeable = { () throws -> Bool in try hasForeseeableRoutingIDs() }
            exit(try isForeseeable() ? EXIT_FAILURE : EXIT_SUCCESS)
        }
    }
}

/// Whether the first ids of ROUTERs are libzmq's usual ones, or making them has disturbed `rand()`.
@available(*, noasync)
private func hasForeseeableRoutingIDs() throws -> Bool {
    srand(7)
    let expected = (0..<4).map { _ in rand() }
    srand(7)
    var firsts: Set<[UInt8]> = []
    for _ in 0..<4 {
        guard rand() == expected[firsts.count] else { return true }
        let context = try Context()
        let router = try Socket(.router, in: context)
        try router.bind("tcp://127.0.0.1:*")
        let dealer = try Socket(.dealer, in: context)
        try dealer.connect(router.lastEndpoint)
        try sendFrames(dealer, [1])
        firsts.insert(try receiveFrames(router)[0])
    }
    // The first in a process where nothing has asked for a random number yet.
    return firsts.count < 4 || firsts.contains([0, 0x6B, 0x8B, 0x45, 0x67])
}
