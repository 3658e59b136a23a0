// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
package import DroverZMQ

/// The key by which others know a client, a worker or a broker; no secret.
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    /// The key as 40 characters of Z85, ZeroMQ's text form.
    public let text: String
    package let bytes: [UInt8]

    /// Creates a key from its text.
    ///
    /// - Parameter text: 40 characters of Z85.
    /// - Throws: ``UsageError`` if it is no key.
    public init(_ text: String) throws {
        guard KeyText.isKey(text) else {
            throw UsageError(
                .badConfiguration,
                "a public key has 40 characters of Z85, as `drover keys new` prints it; this has \(text.count) characters"
            )
        }
        self.text = text
        self.bytes = try Z85.decode(text)
    }

    /// Reads the key out of a file that `drover keys new` made: that of the pair, or the public one beside it.
    ///
    /// - Parameter path: The file.
    /// - Throws: ``UsageError`` that names the file and what is wrong with it.
    public init(contentsOf path: String) throws {
        let text = try SecurityFile.read(path, limit: KeyPair.maxFileBytes, forbiddenMode: 0, remedy: "")
        guard let key = try KeyPair.parsed(text, path).publicKey else {
            throw UsageError(.badConfiguration, "\(path) has no line public-key; make key files with `drover keys new`")
        }
        try self.init(key)
    }

    /// The text.
    public var description: String { self.text }
}

/// The keys of a client, a worker or a broker: the public one to show around, and the secret one that proves it.
///
/// ```swift
/// let keys = try KeyPair()
/// try keys.write(to: "web.key")
/// ```
///
/// The secret is never printed, logged or sent; it leaves the process only by ``write(to:)``.
public struct KeyPair: Hashable, Sendable {
    package static let maxFileBytes = 4096

    /// The key by which others know the owner.
    public let publicKey: PublicKey
    package let curve: CurveKeyPair

    /// Makes new keys out of the kernel's randomness.
    ///
    /// - Throws: An error if libzmq was built without CURVE.
    public init() throws {
        var keys = try KeyPair(CurveKeyPair.generate())
        // A word that begins with - is an option to the tools that keys are typed into. One key in 85 would.
        while keys.publicKey.text.hasPrefix("-") { keys = try KeyPair(CurveKeyPair.generate()) }
        self = keys
    }

    /// Reads keys from a file that ``write(to:)`` or `drover keys new` made.
    ///
    /// - Parameter path: The file; nobody but its owner may have permissions for it. If that is root, and this program is
    ///   not, its group may read it.
    /// - Throws: ``UsageError`` that names the file, what is wrong with it and what to do.
    public init(contentsOf path: String) throws {
        let text = try SecurityFile.read(
            path,
            limit: Self.maxFileBytes,
            forbiddenMode: 0o077,
            remedy: "others could read the secret key; run chmod 600 \(path), and make new keys if they might have"
        )
        let file = try Self.parsed(text, path)
        guard let secret = file.secretKey else {
            throw UsageError(
                .badConfiguration,
                "\(path) has no line secret-key: it is a public key's file; give the one that `drover keys new` made secret"
            )
        }
        try self.init(CurveKeyPair(secretKey: Z85.decode(secret)))
        guard file.publicKey == nil || file.publicKey == self.publicKey.text else {
            throw UsageError(
                .badConfiguration,
                "the two keys in \(path) don't belong together; restore it, or make new ones"
            )
        }
    }

    private init(_ curve: CurveKeyPair) throws {
        self.publicKey = try PublicKey(Z85.encode(curve.publicKey))
        self.curve = curve
    }

    /// Writes the keys to a file with the mode 0600, and the public key to one beside it whose name ends with `.pub`.
    ///
    /// - Parameter path: The file, which must not be there yet.
    /// - Throws: ``UsageError`` if it is, or can't be written.
    public func write(to path: String) throws {
        let secret = try Z85.encode(self.curve.secretKey)
        let text = KeyFileText.text(publicKey: self.publicKey.text, secretKey: secret)
        try SecurityFile.write(text, to: path, mode: 0o600, replaces: false)
        let shown = KeyFileText.text(publicKey: self.publicKey.text, secretKey: nil)
        try SecurityFile.write(shown, to: path + ".pub", mode: 0o644, replaces: true)
    }

    static func parsed(_ text: String, _ path: String) throws -> KeyFileText {
        do throws(SecurityTextError) { return try KeyFileText(parsing: text, file: path) } catch {
            throw UsageError(.badConfiguration, "\(error)")
        }
    }
}

extension KeyPair: CustomStringConvertible, CustomReflectable {
    /// The public key only.
    public var description: String { "KeyPair(\(self.publicKey))" }

    /// Nothing that a dump could show of the secret.
    public var customMirror: Mirror { Mirror(self, children: ["publicKey": self.publicKey.text]) }
}

/// What a client, or a worker that dials brokers, needs for encrypted connections.
public struct ConnectionKeys: Hashable, Sendable {
    /// Its own keys; the other side must allow the public one.
    public var own: KeyPair
    /// The public key that the other side must prove.
    public var server: PublicKey
    /// Where the other side has another key: keys by address, as it is given to the client or the worker.
    public var otherServers: [String: PublicKey] = [:]
    /// Whether the process may leave a core dump, and be read by a debugger, though it holds keys.
    public var allowsDumps = false

    /// Creates the keys of a connection.
    ///
    /// - Parameters:
    ///   - own: Its own keys.
    ///   - server: The public key that the other side must prove.
    public init(own: KeyPair, server: PublicKey) {
        self.own = own
        self.server = server
    }

    package func server(at address: String) -> PublicKey { self.otherServers[address] ?? self.server }
}

/// What a broker, or a worker that listens, needs for encrypted connections.
public struct ListenerKeys: Hashable, Sendable {
    /// Its own keys; clients must know the public one.
    public var own: KeyPair
    /// The file that says whose keys are let in, and what they may do.
    public var allowList: String
    /// How many connections may be opened with one key at once: 4,096, and more as time passes.
    ///
    /// Those over it are closed, logged, and tried again by libzmq.
    public var connectionBurst = 4096
    /// How many connections may be opened with one key for long, each second: 64.
    public var connectionsPerSecond = 64
    /// Whether the process may leave a core dump, and be read by a debugger, though it holds keys.
    public var allowsDumps = false

    /// Creates the keys of a listener.
    ///
    /// - Parameters:
    ///   - own: Its own keys.
    ///   - allowList: The file that says whose keys are let in; see `docs/operating/security.md`. Changes are noticed
    ///     within two seconds.
    public init(own: KeyPair, allowList: String) {
        self.own = own
        self.allowList = allowList
    }
}

extension Socket {
    /// What connects from now on must prove a key that the judge of `domain` lets in.
    ///
    /// A ZAP domain can't be taken back, so a socket that also connects does that before.
    @available(*, noasync)
    package borrowing func listenEncrypted(_ keys: KeyPair, domain: String) throws(ZMQError) {
        try self.set(.zapDomain, domain)
        try self.set(.zapEnforceDomain, true)
        try self.set(.curveServer, true)
        try self.set(.curveSecretKey, keys.curve.secretKey)
    }

    /// What is connected to from now on must prove its key; without keys it is spoken to in the clear.
    @available(*, noasync)
    package borrowing func connectEncrypted(_ keys: ConnectionKeys?, to address: String) throws(ZMQError) {
        // Takes back the keys of the address before this one.
        try self.set(.curveServer, false)
        guard let keys else { return }
        try self.set(.curveServerKey, keys.server(at: address).bytes)
        try self.set(.curvePublicKey, keys.own.curve.publicKey)
        try self.set(.curveSecretKey, keys.own.curve.secretKey)
    }
}
