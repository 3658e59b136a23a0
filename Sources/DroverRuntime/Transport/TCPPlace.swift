// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Where a `tcp://` address leads, read once for all who ask: what it is can't be told from how its text begins.
package struct TCPPlace: Hashable, Sendable {
    package enum Host: Hashable, Sendable {
        /// All addresses of this machine, to bind.
        case any
        /// Four bytes of IPv4.
        case version4([UInt8])
        /// Sixteen bytes of IPv6.
        case version6([UInt8])
        /// A name to look up or, to bind, that of a network interface.
        case name(String)
    }

    /// Why a text is no place.
    package enum Problem: Error, Hashable {
        case noPort
        case noHost(port: String)
        case badPort(String)
        case badHost(String)
    }

    package let host: Host
    /// nil to bind whichever is free.
    package let port: UInt16?

    /// Reads `HOST:PORT`.
    ///
    /// - Parameter text: A name, an IPv4 address, an IPv6 address in brackets, or `*`; and a port, or `*`.
    /// - Throws: ``Problem``; more than one address, as libzmq takes to choose where a connection starts, is one.
    package init(parsing text: Substring) throws(Problem) {
        guard let colon = text.lastIndex(of: ":") else { throw .noPort }
        let host = text[..<colon]
        let port = text[text.index(after: colon)...]
        guard !host.isEmpty else { throw .noHost(port: String(port)) }
        if port == "*" {
            self.port = nil
        } else {
            guard port.utf8.allSatisfy({ 48...57 ~= $0 }), let number = UInt16(port) else {
                throw .badPort(String(port))
            }
            self.port = number
        }
        self.host = try Self.host(host)
    }

    /// Whether only programs of this machine can use it.
    package var isLoopback: Bool {
        switch self.host {
        case .any: false
        case .version4(let bytes): bytes[0] == 127
        case .version6(let bytes):
            bytes == [UInt8](repeating: 0, count: 15) + [1] || Self.version4(mappedBy: bytes)?.first == 127
        case .name(let name): name.lowercased() == "localhost"
        }
    }

    /// Whether only programs of this machine can reach who listens there.
    package var isLoopbackToBind: Bool {
        // libzmq takes names of interfaces here, and this is Linux's own for the loopback.
        self.isLoopback || self.host == .name("lo")
    }

    private static func host(_ text: Substring) throws(Problem) -> Host {
        if text == "*" { return .any }
        if text.first == "[" {
            guard text.last == "]" else { throw .badHost(String(text)) }
            let inside = text.dropFirst().dropLast()
            // The zone of a link-local address names an interface.
            let parts = inside.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
            guard let address = parts.first, parts.count == 1 || self.isName(parts[1]),
                let bytes = Self.bytes(of: address, AF_INET6, count: 16)
            else { throw .badHost(String(text)) }
            return .version6(bytes)
        }
        if let bytes = Self.bytes(of: text, AF_INET, count: 4) { return .version4(bytes) }
        guard self.isName(text) else { throw .badHost(String(text)) }
        return .name(String(text))
    }

    private static func isName(_ text: Substring) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                48...57 ~= $0 || 65...90 ~= $0 || 97...122 ~= $0 || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    private static func bytes(of text: Substring, _ family: CInt, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let isAddress = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe inet_pton(family, String(text), buffer.baseAddress) == 1
        }
        return isAddress ? bytes : nil
    }

    /// The IPv4 address inside an IPv6 one of the form `::ffff:127.0.0.1`.
    private static func version4(mappedBy bytes: [UInt8]) -> ArraySlice<UInt8>? {
        guard bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF] else { return nil }
        return bytes[12...]
    }
}
