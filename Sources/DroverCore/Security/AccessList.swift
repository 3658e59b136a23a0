// SPDX-License-Identifier: Apache-2.0

/// What a principal may do.
package struct AccessRights: OptionSet, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Make calls, and cancel one's own.
    package static let submit = AccessRights(rawValue: 1)
    /// Offer functions and run others' calls.
    package static let work = AccessRights(rawValue: 2)
    /// Cancel the calls of others.
    package static let cancel = AccessRights(rawValue: 4)
    /// See and change what concerns everybody.
    package static let admin = AccessRights(rawValue: 8)

    /// The rights by name, in the order they are written.
    package static let names: [(name: String, right: AccessRights)] = [
        ("submit", .submit), ("work", .work), ("cancel", .cancel), ("admin", .admin),
    ]

    /// The right of a name.
    package init?(name: some StringProtocol) {
        guard let known = Self.names.first(where: { $0.name == name }) else { return nil }
        self = known.right
    }

    /// Their names.
    package var nameList: [String] { Self.names.filter { self.contains($0.right) }.map { $0.name } }

    /// Their names, with commas between.
    package var description: String { self.nameList.joined(separator: ",") }
}

/// Who a key belongs to, and what that principal may do.
package struct AccessGrant: Hashable, Sendable {
    package var principal: String
    package var rights: AccessRights
    /// The queues that the rights are limited to, "" being the unnamed one; nil for all.
    package var queues: Set<String>?

    package init(principal: String, rights: AccessRights, queues: Set<String>? = nil) {
        self.principal = principal
        self.rights = rights
        self.queues = queues
    }

    /// Whether the rights hold for a queue.
    package func includes(queue: String) -> Bool { self.queues?.contains(queue) ?? true }
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
        return columns.joined(separator: "  ")
    }
}

/// The keys that a broker or a worker lets in.
package struct AccessList: Hashable, Sendable {
    package private(set) var entries: [AccessEntry] = []
    private var places: [String: Int] = [:]

    /// Nobody.
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

/// Z85 as far as keys need it: the owner of a key is known by the text.
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
