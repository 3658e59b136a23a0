// SPDX-License-Identifier: Apache-2.0

/// An address of a worker or broker, such as `tcp://host:5555` or `ipc:///run/drover.sock`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    /// The address as it was given.
    public let address: String
    /// Where it leads, if it is one of tcp.
    package let tcp: TCPPlace?

    /// Creates an endpoint from its address.
    ///
    /// - Parameter address: `tcp://HOST:PORT` or `ipc://PATH`, also within a process. An IPv6 address stands in brackets. To bind, the
    ///   port may be `*` for any, the host `*` for all addresses of this machine, or the name of a network interface.
    /// - Throws: ``UsageError`` with `badConfiguration` that says what is wrong with the address.
    public init(_ address: String) throws {
        guard let separator = address.firstRange(of: "://") else {
            throw Self.error(address, "has no transport; write tcp://\(address.isEmpty ? "HOST:PORT" : address)")
        }
        let transport = String(address[..<separator.lowerBound])
        let place = String(address[separator.upperBound...])
        var tcp: TCPPlace?
        switch transport {
        case "tcp": tcp = try Self.tcp(place, of: address)
        case "ipc":
            guard !place.isEmpty else { throw Self.error(address, "names no path; write ipc:///path/to/socket") }
            guard place.utf8.count < 108 else {
                throw Self.error(address, "has a path of \(place.utf8.count) bytes; a socket's path has at most 107")
            }
        case "inproc":
            // ZeroMQ tells nothing of such connections: neither when they stand nor when they end.
            throw Self.error(
                address,
                "uses inproc, whose connections can't be watched; within a process, too, use ipc://PATH or tcp://127.0.0.1:*"
            )
        default:
            throw Self.error(address, "uses \"\(transport)\"; known transports are tcp and ipc")
        }
        self.address = address
        self.tcp = tcp
    }

    /// The address.
    public var description: String { self.address }

    /// Whether only programs of this machine can be there.
    package var isLocal: Bool { self.tcp?.isLoopback ?? true }

    /// Whether only programs of this machine can reach who listens there.
    package var isLocalToBind: Bool { self.tcp?.isLoopbackToBind ?? true }

    /// The address as libzmq takes it to listen.
    ///
    /// libzmq looks no names up then: they are those of interfaces, and none is called localhost.
    package var addressToBind: String {
        guard let tcp, case .name = tcp.host, tcp.isLoopback else { return self.address }
        return "tcp://127.0.0.1:\(tcp.port.map { "\($0)" } ?? "*")"
    }

    /// The name that must be looked up before libzmq may have the address; nil if there is none.
    ///
    /// That of the loopback is known (RFC 6761).
    package var nameToLookUp: String? {
        guard let tcp, case .name(let name) = tcp.host, !tcp.isLoopback else { return nil }
        return name
    }

    /// The address as libzmq takes it to connect, with the address of its host if that was looked up.
    package func addressToDial(at host: String? = nil) -> String {
        guard let tcp, case .name = tcp.host, let port = tcp.port else { return self.address }
        return "tcp://\(host ?? "127.0.0.1"):\(port)"
    }

    private static func tcp(_ place: String, of address: String) throws -> TCPPlace {
        do throws(TCPPlace.Problem) { return try TCPPlace(parsing: place[...]) } catch {
            switch error {
            case .noPort:
                throw self.error(address, "has no port; write tcp://\(place.isEmpty ? "HOST" : place):PORT")
            case .noHost(let port): throw self.error(address, "names no host; write tcp://HOST:\(port)")
            case .badPort(let port):
                throw self.error(address, "has the port \"\(port)\"; a port is a number up to 65535, or * to bind any")
            case .badHost(let host):
                throw self.error(
                    address,
                    "has the host \"\(host)\"; write a name, an IPv4 address, or an IPv6 address in brackets"
                )
            }
        }
    }

    private static func error(_ address: String, _ problem: String) -> UsageError {
        UsageError(.badConfiguration, "the endpoint \"\(address)\" \(problem)")
    }
}
