// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Drover
import DroverCore
import Foundation

/// `drover keys`: makes keys and manages whose are let in.
struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Make keys, and say whose are let in and what they may do.",
        discussion: """
            Whoever takes part has a pair of keys: a secret one, which stays in its file, and a public one, by which others know \
            it. A broker lets in the public keys on its allow-list, a text file with a line for each:

              PRINCIPAL  PUBLIC-KEY  RIGHTS  [queues=NAME,NAME] [functions=NAME,NAME] [tenant=NAME] [QUOTA=NUMBER]

            RIGHTS are submit (make calls, cancel one's own), work (run calls), cancel (cancel others' calls) and admin (see and \
            change what concerns everybody), with commas between. Without queues= the first three hold for all queues; - is the \
            unnamed one. Without functions= they hold for all functions; mail.* are those whose names begin with mail. Quotas, \
            such as calls=10k, say how much all keys of the principal may use, or all that share a tenant; the page about \
            security has them all. A line that begins with # is a comment. A running broker notices a change within two seconds, \
            and cuts off at once whoever is no longer there.

            From nothing to an encrypted pool:

              drover keys new broker.key
              drover keys new web.key
              drover keys allow web web.key.pub --rights submit
              drover broker --key broker.key --allow-list drover.allow
              drover status --key web.key --server-key broker.key.pub
            """,
        subcommands: [KeysNew.self, KeysList.self, KeysAllow.self, KeysRevoke.self]
    )
}

/// Where the allow-list is.
struct AllowListOption: ParsableArguments {
    @Option(help: "The allow-list's file. [default: $DROVER_ALLOW_LIST, or drover.allow]")
    var allowList: String?

    var path: String {
        self.allowList ?? ProcessInfo.processInfo.environment["DROVER_ALLOW_LIST"] ?? "drover.allow"
    }
}

/// `drover keys new`: makes a key pair.
struct KeysNew: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "new",
        abstract: "Make a pair of keys.",
        discussion: """
            Writes the pair to FILE, which only its owner may read (mode 0600), and the public key to FILE.pub, to be copied to \
            whoever shall know it. Prints the public key. A file that is there already is never overwritten.
            """
    )

    @Argument(help: "The file to make.")
    var file: String

    @Flag(help: "Print JSON, for programs.")
    var json = false

    private struct Made: Encodable {
        let file: String
        let publicFile: String
        let publicKey: String
    }

    func run() throws {
        let keys = try KeyPair()
        try keys.write(to: self.file)
        if self.json {
            return try printJSON(
                Made(file: self.file, publicFile: self.file + ".pub", publicKey: keys.publicKey.text)
            )
        }
        print(keys.publicKey)
    }
}

/// `drover keys list`: shows who is let in.
struct KeysList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List whose keys are let in, and what they may do.",
        discussion: "Ends with an error that names file and line if the allow-list can't be understood."
    )

    @OptionGroup var list: AllowListOption

    @Flag(help: "Print JSON, for programs.")
    var json = false

    private struct Line: Encodable {
        let principal: String
        let publicKey: String
        let rights: [String]
        /// Absent means all; "" is the unnamed queue.
        let queues: [String]?
        /// Absent means all.
        let functions: [String]?
        /// As in the list, with the tenant.
        let quotas: [String]
    }

    func run() throws {
        let entries = try AccessPolicy.read(self.list.path).entries
        if self.json {
            return try printJSON(
                entries.map {
                    Line(
                        principal: $0.grant.principal,
                        publicKey: $0.key,
                        rights: $0.grant.rights.nameList,
                        queues: $0.grant.queues?.sorted(),
                        functions: $0.grant.functions?.words,
                        quotas: $0.grant.quotaColumns
                    )
                }
            )
        }
        guard !entries.isEmpty else { return print("nobody is let in") }
        var table = Table([
            .init(title: "PRINCIPAL"), .init(title: "PUBLIC KEY"), .init(title: "RIGHTS"), .init(title: "QUEUES"),
            .init(title: "FUNCTIONS"), .init(title: "QUOTAS"),
        ])
        for entry in entries {
            let queues = entry.grant.queues.map { $0.sorted().map { $0.isEmpty ? "-" : $0 }.joined(separator: ",") }
            let functions = entry.grant.functions?.description
            let quotas = entry.grant.quotaColumns.joined(separator: " ")
            table.add([
                entry.grant.principal, entry.key, entry.grant.rights.description, queues ?? "all", functions ?? "all",
                quotas.isEmpty ? "-" : quotas,
            ])
        }
        print(table.lines.joined(separator: "\n"))
    }
}

/// `drover keys allow`: lets a key in.
struct KeysAllow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "allow",
        abstract: "Let a key in.",
        discussion: """
            Adds a line to the allow-list, which is made if it isn't there. A principal may have several keys, which is how a key \
            is replaced without a break. To change what a key may do, revoke it and allow it again, or edit the file. Several \
            commands may run at once; none undoes another's change.

            A key that another tool made may begin with -: write -- before it, behind all options.
            """
    )

    @Argument(help: "Whose key it is: up to 64 letters, digits, and . _ @ -")
    var principal: String

    @Argument(help: "The public key, or a file with it, such as FILE.pub.")
    var key: String

    @Option(help: "What it may do: submit, work, cancel, admin, with commas between.")
    var rights = "submit"

    @Option(help: "The queues that the rights are limited to, with commas between; - is the unnamed one.")
    var queues: String?

    @Option(
        help: "The functions that the rights are limited to, with commas between; NAME* are all that begin so."
    )
    var functions: String?

    @Option(
        name: .customLong("quota"),
        parsing: .singleValue,
        help: "How much its owner may use, such as calls=10k or bytes=1G, or with whom: tenant=NAME. May be repeated."
    )
    var quotas: [String] = []

    @OptionGroup var list: AllowListOption

    func run() throws {
        let key = try publicKey(self.key)
        // The line as a person would write it, read as the broker reads it.
        let limits = [self.queues.map { "queues=\($0)" }, self.functions.map { "functions=\($0)" }].compactMap { $0 }
        let line = [self.principal, key.text, self.rights] + limits + self.quotas
        guard line.allSatisfy({ !$0.contains { $0.isWhitespace } && !$0.isEmpty }) else {
            throw Failure("principal, rights, queues, functions and quotas are words without spaces")
        }
        let entries = try readList(line.joined(separator: " "), "this entry").entries
        guard let entry = entries.first else { throw Failure("a principal doesn't begin with #") }
        let path = self.list.path
        try SecurityFile.update(path, read: AccessPolicy.text) { text in
            var known = try readList(text, path)
            guard known.add(entry) else {
                let owner = known.grant(of: key.text)?.principal ?? ""
                throw Failure("the key is on \(path) already, as \(owner)'s; revoke it first to change what it may do")
            }
            return AccessList.adding(entry, to: text)
        }
    }
}

/// `drover keys revoke`: no longer lets a key in.
struct KeysRevoke: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke",
        abstract: "Let a key, or all keys of a principal, in no more.",
        discussion: """
            Takes the lines out of the allow-list. A running broker ends the sessions of the keys within two seconds: their calls \
            are cancelled, their workers' calls go to others.
            """
    )

    @Argument(help: "A principal, a public key, or a file with one.")
    var who: String

    @OptionGroup var list: AllowListOption

    func run() throws {
        let path = self.list.path
        // Fails if there is no list to revoke the key from.
        _ = try AccessPolicy.text(of: path)
        var keys: Set<String> = []
        try SecurityFile.update(path, read: AccessPolicy.text) { text in
            let entries = try readList(text, path).entries
            keys = Set(entries.filter { $0.grant.principal == self.who }.map { $0.key })
            if keys.isEmpty, let key = try? publicKey(self.who), entries.contains(where: { $0.key == key.text }) {
                keys = [key.text]
            }
            guard !keys.isEmpty else {
                throw Failure("\(self.who) is neither a principal nor a key on \(path); `drover keys list` shows them")
            }
            return AccessList.removing(keys: keys, from: text)
        }
        print(keys.count == 1 ? "revoked 1 key" : "revoked \(keys.count) keys")
    }
}

private func readList(_ text: String, _ file: String) throws -> AccessList {
    do throws(SecurityTextError) { return try AccessList(parsing: text, file: file) } catch {
        throw Failure("\(error)")
    }
}
