// SPDX-License-Identifier: Apache-2.0

/// What a principal may do.
package struct AccessRights: OptionSet, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Make calls, and cancel its own.
    package static let submit = AccessRights(rawValue: 1)
    /// Offer functions and run others' calls.
    package static let work = AccessRights(rawValue: 2)
    /// Cancel the calls of others.
    package static let cancel = AccessRights(rawValue: 4)
    /// See and change what concerns everyone.
    package static let admin = AccessRights(rawValue: 8)

    /// The rights by name, in the order they are written.
    package static let names: [(name: String, right: AccessRights)] = [
        ("submit", .submit), ("work", .work), ("cancel", .cancel), ("admin", .admin),
    ]

    /// The right with this name.
    package init?(name: some StringProtocol) {
        guard let known = Self.names.first(where: { $0.name == name }) else { return nil }
        self = known.right
    }

    /// The names of the rights.
    package var nameList: [String] { Self.names.filter { self.contains($0.right) }.map { $0.name } }

    /// The names, separated by commas.
    package var description: String { self.nameList.joined(separator: ",") }
}

/// The principal that a key belongs to, and what that principal may do.
package struct AccessGrant: Hashable, Sendable {
    package var principal: String
    package var rights: AccessRights
    /// The queues that the rights are limited to, "" being the unnamed one; nil for all.
    package var queues: Set<String>?
    /// The functions that the rights are limited to; nil for all.
    package var functions: FunctionNames?
    /// The tenant that shares quotas, ordering keys and workers' time; nil if that is the principal alone.
    package var group: String?
    /// How much it may use, as far as the list says.
    package var quotas = Quotas()

    package init(
        principal: String,
        rights: AccessRights,
        queues: Set<String>? = nil,
        functions: FunctionNames? = nil
    ) {
        self.principal = principal
        self.rights = rights
        self.queues = queues
        self.functions = functions
    }

    /// The tenant whose quotas, ordering keys and share its sessions have.
    ///
    /// A group and a principal of the same name are different tenants.
    package var claim: TenantClaim {
        TenantClaim(name: self.group.map { "tenant=\($0)" } ?? self.principal, quotas: self.quotas)
    }

    /// Whether the rights cover a queue.
    package func includes(queue: String) -> Bool { self.queues?.contains(queue) ?? true }

    /// Whether the rights cover a function.
    package func includes(function: String) -> Bool { self.functions?.contains(function) ?? true }

    /// Whether every call may be made.
    package var mayCallAnything: Bool {
        self.rights.contains(.submit) && self.queues == nil && self.functions == nil
    }

    /// Why no call may be made; nil if some may.
    package var problemSubmitting: String? {
        guard !self.rights.contains(.submit) else { return nil }
        return "\(self.principal) may not make calls: its key's line in the allow-list lacks the right submit"
    }

    /// Why a call may not be made; nil if it may.
    ///
    /// - Parameters:
    ///   - function: Its name; nil if the name is unknown: then nothing runs.
    ///   - queue: Its queue.
    /// - Returns: What is missing, as a message for people.
    package func problem(submitting function: String?, to queue: String) -> String? {
        if let problem = self.problemSubmitting { return problem }
        if !self.includes(queue: queue) { return self.limited("use \(Self.name(ofQueue: queue))", .submit, "queues") }
        guard let function, !self.includes(function: function) else { return nil }
        return self.limited("call \(function)", .submit, "functions")
    }

    /// Why a worker may not offer itself; nil if it may.
    package func problem(offering functions: some Sequence<String>, in queues: some Sequence<String>) -> String? {
        guard self.rights.contains(.work) else {
            return "\(self.principal) may not work: its key's line in the allow-list lacks the right work"
        }
        if let queue = queues.first(where: { !self.includes(queue: $0) }) {
            return self.limited("serve \(Self.name(ofQueue: queue))", .work, "queues")
        }
        guard let function = functions.first(where: { !self.includes(function: $0) }) else { return nil }
        return self.limited("offer \(function)", .work, "functions")
    }

    /// Why another client's call may not be cancelled; nil if it may.
    package func problem(cancelling function: String, in queue: String) -> String? {
        guard self.rights.contains(.cancel) else {
            return
                "\(self.principal) may not cancel others' calls: its key's line in the allow-list lacks the right cancel"
        }
        if !self.includes(queue: queue) {
            return self.limited("cancel calls in \(Self.name(ofQueue: queue))", .cancel, "queues")
        }
        guard !self.includes(function: function) else { return nil }
        return self.limited("cancel calls of \(function)", .cancel, "functions")
    }

    private func limited(_ what: String, _ right: AccessRights, _ names: String) -> String {
        "\(self.principal) may not \(what): its key's line in the allow-list limits the right \(right) to other \(names)"
    }

    private static func name(ofQueue queue: String) -> String {
        queue.isEmpty ? "the unnamed queue" : "the queue \(queue)"
    }
}

/// Names of functions as an allow-list has them: single names, or all names with a prefix.
package struct FunctionNames: Hashable, Sendable, CustomStringConvertible {
    /// Names that are meant literally.
    private var names: Set<String> = []
    /// The prefixes of others, without the star.
    private var beginnings: [String] = []

    /// Takes the words of a list: `mail.send` is one function, `mail.*` all whose names begin with `mail.`.
    package init(_ words: some Sequence<String>) {
        for word in words {
            if word.hasSuffix("*") {
                self.beginnings.append(String(word.dropLast()))
            } else {
                self.names.insert(word)
            }
        }
        self.beginnings = Set(self.beginnings).sorted()
    }

    /// Whether a function is among them.
    package func contains(_ function: String) -> Bool {
        self.names.contains(function) || self.beginnings.contains { function.utf8.starts(with: $0.utf8) }
    }

    /// The words, in order.
    package var words: [String] { (self.names + self.beginnings.map { $0 + "*" }).sorted() }

    /// The words, separated by commas.
    package var description: String { self.words.joined(separator: ",") }
}

/// One line of an allow-list.
package struct AccessEntry: Hashable, Sendable {
    /// The public key, as 40 characters of Z85.
    package var key: String
    package var grant: AccessGrant

    package init(key: String, grant: AccessGrant) {
        self.key = key
        self.grant = grant
    }

    /// The entry as a line of the file.
    package var line: String {
        var columns = [self.grant.principal, self.key, self.grant.rights.description]
        if let queues = self.grant.queues {
            columns.append("queues=" + queues.sorted().map { $0.isEmpty ? "-" : $0 }.joined(separator: ","))
        }
        if let functions = self.grant.functions { columns.append("functions=\(functions)") }
        columns += self.grant.quotaColumns
        return columns.joined(separator: "  ")
    }
}

/// The keys that a broker or a worker lets in.
package struct AccessList: Hashable, Sendable {
    package private(set) var entries: [AccessEntry] = []
    private var places: [String: Int] = [:]

    /// Creates a list that lets in no one.
    package init() {}

    /// What the owner of a key may do; nil if the key isn't allowed.
    package func grant(of key: String) -> AccessGrant? { self.places[key].map { self.entries[$0].grant } }

    /// Adds an entry.
    ///
    /// - Returns: False if the key is there already.
    package mutating func add(_ entry: AccessEntry) -> Bool {
        guard self.places[entry.key] == nil else { return false }
        self.places[entry.key] = self.entries.count
        self.entries.append(entry)
        return true
    }
}

/// The part of Z85 that keys need: the text identifies a key's owner.
package enum KeyText {
    /// How many characters a key has.
    package static let count = 40

    private static let digits: [UInt8: UInt64] = Dictionary(
        uniqueKeysWithValues:
            Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#".utf8)
            .enumerated().map { ($1, UInt64($0)) }
    )

    /// Whether a text is a key.
    package static func isKey(_ text: some StringProtocol) -> Bool {
        let characters = Array(text.utf8)
        guard characters.count == Self.count else { return false }
        for start in stride(from: 0, to: Self.count, by: 5) {
            var word: UInt64 = 0
            for character in characters[start..<start + 5] {
                guard let digit = Self.digits[character] else { return false }
                word = word * 85 + digit
            }
            guard word <= UInt64(UInt32.max) else { return false }
        }
        return true
    }
}
