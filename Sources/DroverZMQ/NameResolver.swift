// SPDX-License-Identifier: Apache-2.0

import Glibc
import Synchronization

/// Looks up host names, on threads of its own.
///
/// The system's lookup blocks, for many seconds if no server answers. libzmq would do it on its I/O thread and hold up
/// all connections of the process, so it is only ever given addresses. Nothing is cached: each answer is as fresh as
/// its question.
///
/// A few names are looked up at once, each on a thread that ends when nothing is left to do; requests for a name that
/// is already being looked up share its answer.
package final class NameResolver: Sendable {
    /// The error of a failed lookup.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package let description: String

        package init(_ description: String) { self.description = description }
    }

    /// Addresses in the form libzmq takes: `192.0.2.1`, `[2001:db8::1]`.
    package typealias Answer = Result<[String], Failure>

    private struct State: ~Copyable {
        var queue: [String] = []
        /// The callbacks waiting for each name that is queued or being looked up.
        var waiting: [String: [@Sendable (Answer) -> Void]] = [:]
        var threads = 0
    }

    /// The process's resolver.
    package static let shared = NameResolver()

    private let state = Mutex(State())
    private let lookUp: @Sendable (String) -> Answer

    private static let maxThreads = 4
    private static let maxNames = 4096

    /// - Parameter lookUp: Looks a name up, blocking; uses the system's lookup unless a test supplies another.
    package init(lookUp: @escaping @Sendable (String) -> Answer = NameResolver.system) {
        self.lookUp = lookUp
    }

    /// Looks a name up and calls `then` once: on one of the resolver's threads, or right here if the lookup can't be
    /// started.
    package func resolve(_ name: String, then: @escaping @Sendable (Answer) -> Void) {
        let failure = self.state.withLock { state -> Failure? in
            if state.waiting[name] != nil {
                state.waiting[name]?.append(then)
                return nil
            }
            guard state.waiting.count < Self.maxNames else {
                return Failure("\(Self.maxNames) names are being looked up already; is there a name server?")
            }
            if state.threads < Self.maxThreads {
                do throws(ZMQError) {
                    _ = try LoopThread.start(named: "drover-names") { self.serve() }
                    state.threads += 1
                } catch {
                    if state.threads == 0 { return Failure("\(error)") }
                }
            }
            state.waiting[name] = [then]
            state.queue.append(name)
            return nil
        }
        if let failure { then(.failure(failure)) }
    }

    private func serve() {
        while true {
            let name = self.state.withLock { state in
                guard state.queue.isEmpty else { return state.queue.removeFirst() as String? }
                state.threads -= 1
                return nil
            }
            guard let name else { return }
            let answer = self.lookUp(name)
            let waiting = self.state.withLock { $0.waiting.removeValue(forKey: name) ?? [] }
            for then in waiting { then(answer) }
        }
    }

    /// Asks the system, which blocks; IPv4 addresses come first, because most programs bind nothing else.
    package static func system(_ name: String) -> Answer {
        var hints = unsafe addrinfo()
        unsafe hints.ai_family = AF_UNSPEC
        unsafe hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var first: UnsafeMutablePointer<addrinfo>?
        let code = unsafe getaddrinfo(name, nil, &hints, &first)
        guard code == 0 else {
            return .failure(Failure(unsafe String(cString: gai_strerror(code))))
        }
        defer { unsafe freeaddrinfo(first) }
        var (version4, version6): ([String], [String]) = ([], [])
        var next = unsafe first
        while let entry = unsafe next {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let isRead =
                unsafe getnameinfo(
                    entry.pointee.ai_addr,
                    entry.pointee.ai_addrlen,
                    &text,
                    socklen_t(text.count),
                    nil,
                    0,
                    NI_NUMERICHOST
                ) == 0
            let address = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if isRead, unsafe entry.pointee.ai_family == AF_INET { version4.append(address) }
            if isRead, unsafe entry.pointee.ai_family == AF_INET6 { version6.append("[\(address)]") }
            unsafe next = entry.pointee.ai_next
        }
        let addresses = version4 + version6
        return addresses.isEmpty ? .failure(Failure("it has no address")) : .success(addresses)
    }
}
