// SPDX-License-Identifier: Apache-2.0

/// A line of an allow-list or a key file that can't be parsed.
package struct SecurityTextError: Error, Hashable, Sendable, CustomStringConvertible {
    package let file: String
    /// The line's number, from 1; 0 for the whole file.
    package let line: Int
    /// What is wrong, and what to write instead.
    package let message: String

    package init(file: String, line: Int, _ message: String) {
        self.file = file
        self.line = line
        self.message = message
    }

    /// Place and message, as compilers write them.
    package var description: String {
        self.line > 0 ? "\(self.file):\(self.line): \(self.message)" : "\(self.file): \(self.message)"
    }
}

/// The allow-list as people write it: one line per key, in columns.
///
/// ```
/// # principal   public key                                rights        queues and functions (all if there is no such column)
/// web-1         rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7  submit        queues=mail,-  functions=mail.*  calls=10k
/// ```
///
/// The columns after the rights come in any order; quotas and a tenant may be among them. Only a line that *begins*
/// with `#` is a comment: keys may contain one.
extension AccessList {
    /// How many bytes a file may have.
    package static let maxBytes = 16 << 20
    private static let maxLineBytes = 4096

    /// Reads a list.
    ///
    /// - Parameters:
    ///   - text: The contents of the file.
    ///   - file: The file's name, for errors.
    /// - Throws: ``SecurityTextError`` that names the line and the remedy.
    package init(parsing text: String, file: String) throws(SecurityTextError) {
        self.init()
        var lineOf: [String: Int] = [:]
        for (number, line) in Self.lines(of: text) {
            let entry = try Self.entry(line, number, file)
            if let former = lineOf[entry.key] {
                throw SecurityTextError(
                    file: file,
                    line: number,
                    "this key is on line \(former) already; keep one of the two lines"
                )
            }
            lineOf[entry.key] = number
            _ = self.add(entry)
        }
    }

    /// The lines that aren't empty or comments, with their numbers.
    private static func lines(of text: String) -> [(Int, Substring)] {
        text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }.enumerated()
            .map { ($0 + 1, $1) }
            .filter { _, line in
                guard let first = line.first(where: { $0 != " " && $0 != "\t" }) else { return false }
                return first != "#"
            }
    }

    private static func entry(
        _ line: Substring,
        _ number: Int,
        _ file: String
    ) throws(SecurityTextError) -> AccessEntry {
        func problem(_ message: String) -> SecurityTextError {
            SecurityTextError(file: file, line: number, message)
        }
        guard line.utf8.count <= Self.maxLineBytes else {
            throw problem("the line has more than \(Self.maxLineBytes) bytes; split the queues over several principals")
        }
        let columns = line.split { $0 == " " || $0 == "\t" }
        guard columns.count >= 3 else {
            throw problem("a line needs a principal, a public key and rights, such as: web-1 KEY submit")
        }
        let principal = String(columns[0])
        guard Self.isName(principal) else {
            throw problem("\"\(principal)\" is no principal; use up to 64 letters, digits, and . _ @ -")
        }
        guard KeyText.isKey(columns[1]) else {
            throw problem(
                "the second column is no public key; a key has 40 characters of Z85: `drover keys new` prints it"
            )
        }
        var rights = AccessRights()
        for name in columns[2].split(separator: ",", omittingEmptySubsequences: false) {
            guard let right = AccessRights(name: name) else {
                throw problem("\"\(name)\" is no right; rights are submit, work, cancel and admin, with commas between")
            }
            rights.insert(right)
        }
        var grant = AccessGrant(principal: principal, rights: rights)
        for column in columns.dropFirst(3) {
            if try grant.takeQuota(column, problem) { continue }
            if grant.queues == nil, let names = try Self.names(column, "queues", "queue", problem) {
                grant.queues = Set(names.map { $0 == "-" ? "" : $0 })
            } else if grant.functions == nil, let names = try Self.names(column, "functions", "function", problem) {
                grant.functions = FunctionNames(names)
            } else {
                throw problem(
                    "\"\(column)\" is one column too many; only queues=NAME,NAME, functions=NAME,NAME, tenant=NAME and quotas "
                        + "such as calls=1000 may follow the rights"
                )
            }
        }
        return AccessEntry(key: String(columns[1]), grant: grant)
    }

    /// The names in a column; nil if the column has another title.
    private static func names(
        _ column: Substring,
        _ title: String,
        _ what: String,
        _ problem: (String) -> SecurityTextError
    ) throws(SecurityTextError) -> [String]? {
        guard column.hasPrefix("\(title)=") else { return nil }
        let names = column.dropFirst(title.count + 1).split(separator: ",", omittingEmptySubsequences: false)
        guard names.allSatisfy({ !$0.isEmpty }) else {
            let special = title == "queues" ? "- for the unnamed queue" : "NAME* for all that begin so"
            throw problem("a \(what)'s name is missing; write \(title)=NAME,NAME, with \(special)")
        }
        return names.map { String($0) }
    }

    /// Whether a text can be a principal's name.
    package static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.unicodeScalars.allSatisfy { scalar in
                ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar)
                    || "._@-".unicodeScalars.contains(scalar)
            }
    }

    // MARK: Editing

    /// The text with an entry in a line of its own at the end.
    package static func adding(_ entry: AccessEntry, to text: String) -> String {
        let separator = text.isEmpty || text.hasSuffix("\n") ? "" : "\n"
        return text + separator + entry.line + "\n"
    }

    /// The text without the lines of these keys; comments and everything else stay.
    package static func removing(keys: Set<String>, from text: String) -> String {
        let dropped = Set(
            Self.lines(of: text)
                .filter { _, line in
                    let columns = line.split { $0 == " " || $0 == "\t" }
                    return columns.count > 1 && keys.contains(String(columns[1]))
                }
                .map { $0.0 }
        )
        return text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }.enumerated()
            .filter { !dropped.contains($0.offset + 1) }.map { String($0.element) }.joined(separator: "\n")
    }
}

/// A file with a key, or a pair of keys: one line for each, beginning with its name.
package struct KeyFileText: Sendable {
    package var publicKey: String?
    package var secretKey: String?

    /// Reads a key file.
    ///
    /// The text is never part of an error: it may be a secret.
    package init(parsing text: String, file: String) throws(SecurityTextError) {
        let lines = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
        for (index, line) in lines.enumerated() {
            let columns = line.split { $0 == " " || $0 == "\t" }
            guard let name = columns.first, !name.hasPrefix("#") else { continue }
            func problem(_ message: String) -> SecurityTextError {
                SecurityTextError(file: file, line: index + 1, message)
            }
            guard name == "public-key" || name == "secret-key" else {
                throw problem("a line begins with public-key or secret-key; make key files with `drover keys new`")
            }
            guard columns.count == 2, KeyText.isKey(columns[1]) else {
                throw problem("behind \(name) stands no key of 40 characters of Z85; make the file anew or restore it")
            }
            guard (name == "public-key" ? self.publicKey : self.secretKey) == nil else {
                throw problem("a second \(name); a file holds one")
            }
            if name == "public-key" { self.publicKey = String(columns[1]) } else { self.secretKey = String(columns[1]) }
        }
        guard self.publicKey != nil || self.secretKey != nil else {
            throw SecurityTextError(file: file, line: 0, "there is no key in it; make one with `drover keys new`")
        }
    }

    /// The text of a key file.
    package static func text(publicKey: String, secretKey: String?) -> String {
        guard let secretKey else { return "public-key \(publicKey)\n" }
        return """
            # Whoever has this file is its owner: keep it secret. The other sides need the public key only.
            public-key \(publicKey)
            secret-key \(secretKey)

            """
    }
}
