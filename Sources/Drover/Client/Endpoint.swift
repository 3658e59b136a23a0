// SPDX-License-Identifier: Apache-2.0

/// An address of a worker or broker, such as `tcp://host:5555`, `ipc:///run/drover.sock` or `inproc://name`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    /// The address as libzmq takes it.
    public let address: String

    /// Creates an endpoint from its address.
    ///
    /// - Parameter address: `tcp://HOST:PORT`, `ipc://PATH` or `inproc://NAME`; to bind, the port may be `*`.
    /// - Throws: ``UsageError`` with `badConfiguration` that says what is wrong with the address.
    public init(_ address: String) throws {
        guard let separator = address.firstRange(of: "://") else {
            throw Self.error(address, "has no transport; write tcp://\(address.isEmpty ? "HOST:PORT" : address)")
        }
        let transport = String(address[..<separator.lowerBound])
        let place = String(address[separator.upperBound...])
        switch transport {
        case "tcp": try Self.checkTCP(place, of: address)
        case "ipc":
            guard !place.isEmpty else { throw Self.error(address, "names no path; write ipc:///path/to/socket") }
            guard place.utf8.count < 108 else {
                throw Self.error(address, "has a path of \(place.utf8.count) bytes; a socket's path has at most 107")
            }
        case "inproc":
            guard !place.isEmpty, place.utf8.count < 256 else {
                throw Self.error(address, "needs a name of 1 to 255 bytes behind inproc://")
            }
        default:
            throw Self.error(address, "uses \"\(transport)\"; known transports are tcp, ipc and inproc")
        }
        self.address = address
    }

    /// The address.
    public var description: String { self.address }

    /// Whether only programs of this machine can reach it.
    package var isLocal: Bool {
        guard self.address.hasPrefix("tcp://") else { return true }
        let host = self.address.dropFirst(6).split(separator: ":").dropLast().joined(separator: ":")
        return host == "localhost" || host.hasPrefix("127.") || host == "[::1]" || host == "::1" || host == "lo"
    }

    private static func checkTCP(_ place: String, of address: String) throws {
        guard let colon = place.lastIndex(of: ":") else {
            throw self.error(address, "has no port; write tcp://\(place.isEmpty ? "HOST" : place):PORT")
        }
        let host = place[..<colon]
        let port = place[place.index(after: colon)...]
        guard !host.isEmpty else { throw self.error(address, "names no host; write tcp://HOST:\(port)") }
        if port == "*" { return }
        guard let number = UInt32(port), number <= 65_535 else {
            throw self.error(address, "has the port \"\(port)\"; a port is a number up to 65535, or * to bind any")
        }
    }

    private static func error(_ address: String, _ problem: String) -> UsageError {
        UsageError(.badConfiguration, "the endpoint \"\(address)\" \(problem)")
    }
}
