// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Allow-list")
struct AccessListTests {
    private static let key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    private static let other = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

    private func parse(_ text: String) throws(SecurityTextError) -> AccessList {
        try AccessList(parsing: text, file: "allow")
    }

    private func problem(_ text: String) -> SecurityTextError? {
        do throws(SecurityTextError) {
            _ = try self.parse(text)
            return nil
        } catch {
            return error
        }
    }

    @Test("a list has comments, empty lines and columns of any width")
    func reads() throws {
        let text = "# who\n\n  web-1\t \(Self.key)  submit,admin\r\npool \(Self.other) work   queues=mail,-  \n   # end"
        let list = try self.parse(text)
        #expect(list.entries.count == 2)
        #expect(list.grant(of: Self.key) == AccessGrant(principal: "web-1", rights: [.submit, .admin]))
        let pool = try #require(list.grant(of: Self.other))
        #expect(pool.rights == .work)
        #expect(pool.queues == ["mail", ""])
        #expect(pool.includes(queue: "") && pool.includes(queue: "mail") && !pool.includes(queue: "other"))
        #expect(list.grant(of: "nobody") == nil)
    }

    @Test("a key may have a number sign in it")
    func numberSign() throws {
        let key = "#" + Self.key.dropFirst()
        // Too large a word: still refused as a key, not read as a comment.
        #expect(self.problem("a \(key) submit")?.line == 1)
        let inside = "0#" + Self.key.dropFirst(2)
        #expect(try self.parse("a \(inside) submit").grant(of: inside)?.principal == "a")
    }

    @Test("one principal may have several keys, a key one line only")
    func keys() throws {
        #expect(try self.parse("a \(Self.key) submit\na \(Self.other) submit").entries.count == 2)
        let error = try #require(self.problem("a \(Self.key) submit\n\nb \(Self.key) work"))
        #expect(error.line == 3)
        #expect(error.message.contains("line 1"))
    }

    @Test(
        "what is wrong is named with its file, its line and the remedy",
        arguments: [
            ("web \(key)", "needs a principal, a public key and rights"),
            ("web-1", "needs a principal"),
            ("w/b \(key) submit", "letters, digits"),
            ("\(String(repeating: "w", count: 65)) \(key) submit", "up to 64"),
            ("web short submit", "drover keys new"),
            ("web \(key)x submit", "drover keys new"),
            ("web \(key) fly", "submit, work, cancel and admin"),
            ("web \(key) submit,", "rights are"),
            ("web \(key) submit,,work", "rights are"),
            ("web \(key) SUBMIT", "rights are"),
            ("web \(key) submit queue=a", "queues=NAME"),
            ("web \(key) submit queues=a queues=b", "one column too many"),
            ("web \(key) submit queues=", "a queue's name is missing"),
            ("web \(key) submit queues=a,,b", "a queue's name is missing"),
            ("web \(key) submit queues=\(String(repeating: "q", count: 5000))", "more than 4096 bytes"),
        ]
    )
    func problems(line: String, remedy: String) throws {
        let error = try #require(self.problem("# first\n\(line)\n"))
        #expect(error.line == 2)
        #expect(error.description.hasPrefix("allow:2: "))
        #expect(error.message.contains(remedy), "\(error)")
    }

    @Test("an entry is written as it is read, added behind and taken out, and all else stays")
    func editing() throws {
        let grant = AccessGrant(principal: "web", rights: [.submit, .cancel], queues: ["", "mail"])
        let entry = AccessEntry(key: Self.key, grant: grant)
        let text = "# ours\npool \(Self.other) work"
        let longer = AccessList.adding(entry, to: text)
        #expect(longer == text + "\n" + entry.line + "\n")
        #expect(try self.parse(longer).grant(of: Self.key) == grant)
        #expect(AccessList.removing(keys: [Self.key], from: longer) == text + "\n")
        #expect(AccessList.removing(keys: [Self.other], from: longer) == "# ours\n" + entry.line + "\n")
        #expect(AccessList.removing(keys: [], from: longer) == longer)
    }

    @Test("no text makes the parser fail otherwise than by an error")
    func garbage() {
        var generator = SystemRandomNumberGenerator()
        let alphabet = Array("# \t\n\r,=-aZ\u{0}\u{e9}\u{1F600}" + Self.key)
        for _ in 0..<500 {
            let count = Int.random(in: 0...200, using: &generator)
            let text = String((0..<count).compactMap { _ in alphabet.randomElement(using: &generator) })
            if let error = self.problem(text) { #expect(!error.message.isEmpty) }
        }
    }

    @Test("a key file comes back, and its errors don't show what it holds")
    func keyFile() throws {
        let text = KeyFileText.text(publicKey: Self.key, secretKey: Self.other)
        let read = try KeyFileText(parsing: text, file: "k")
        #expect(read.publicKey == Self.key)
        #expect(read.secretKey == Self.other)
        let bad = [
            "secret-key \(Self.other)x", "secret \(Self.other)", "", "public-key \(Self.key)\npublic-key \(Self.key)",
        ]
        for text in bad {
            let error = #expect(throws: SecurityTextError.self) { try KeyFileText(parsing: text, file: "k") }
            #expect(error?.description.contains(Self.other) == false)
        }
    }
}
