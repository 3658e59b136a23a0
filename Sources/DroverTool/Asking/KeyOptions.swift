// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverCore
import Foundation

/// The keys of a client that asks a broker something.
struct KeyOptions: ParsableArguments {
    @Option(help: "The file with one's own keys. [default: $DROVER_KEY]")
    var key: String?

    @Option(help: "The broker's public key, or a file with it. [default: $DROVER_SERVER_KEY]")
    var serverKey: String?

    @Flag(help: "Speak to other machines without keys: who is on the way can read and change what is said.")
    var allowUnencryptedNetwork = false

    /// The keys, if there are any.
    func connection() throws -> ConnectionKeys? {
        let environment = ProcessInfo.processInfo.environment
        switch (self.key ?? environment["DROVER_KEY"], self.serverKey ?? environment["DROVER_SERVER_KEY"]) {
        case (nil, nil): return nil
        case (let own?, let server?):
            return try ConnectionKeys(own: ownKeys(own), server: publicKey(server))
        case (.some, nil): throw Failure("a key needs the broker's public one beside it: --server-key FILE.pub")
        case (nil, .some): throw Failure("the broker lets in keys only: give one's own by --key FILE")
        }
    }

    /// Refuses to talk to other machines without encryption, in this tool's own words.
    func check(_ keys: ConnectionKeys?, _ address: String) throws {
        guard keys == nil, !self.allowUnencryptedNetwork, try !Endpoint(address).isLocal else { return }
        throw Failure(
            "the way to \(address) leaves this machine unencrypted: give keys by --key and --server-key, or "
                + "--allow-unencrypted-network if the network is trusted"
        )
    }
}

/// A public key, given directly or by its file.
func publicKey(_ text: String) throws -> PublicKey {
    guard !KeyText.isKey(text) else { return try PublicKey(text) }
    guard FileManager.default.fileExists(atPath: text) else {
        throw Failure("\(text) is no public key, which has 40 characters, and there is no file of that name")
    }
    return try PublicKey(contentsOf: text)
}

/// The user's own keys, given by their file.
func ownKeys(_ path: String) throws -> KeyPair {
    // Otherwise the error would complain about the file's mode, as if it held secret keys.
    guard !path.hasSuffix(".pub") else {
        throw Failure("\(path) holds a public key: give --key the file without .pub, with the secret one")
    }
    return try KeyPair(contentsOf: path)
}
