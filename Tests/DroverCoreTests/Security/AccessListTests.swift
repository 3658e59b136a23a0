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
            ("web \(key) submit functions=a functions=b", "one column too many"),
            ("web \(key) submit functions=a,", "a function's name is missing"),
            ("web \(key) submit calls=many", "no number for calls="),
            ("web \(key) submit calls=", "no number for calls="),
            ("web \(key) submit calls=99999999999G", "no number for calls="),
            ("web \(key) submit rate=0", "write 1 or more"),
            ("web \(key) submit priority=8", "write 0 to 7"),
            ("web \(key) submit calls=1 calls=2", "a second calls="),
            ("web \(key) submit tenant=a/b", "is no tenant"),
            ("web \(key) submit tenant=a tenant=b", "a second tenant="),
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

    @Test("rights may be limited to functions, by their names or how these begin")
    func functions() throws {
        let list = try self.parse("web \(Self.key) submit functions=echo,mail.* queues=mail")
        let grant = try #require(list.grant(of: Self.key))
        #expect(grant.functions?.words == ["echo", "mail.*"] && grant.queues == ["mail"])
        for name in ["echo", "mail.", "mail.send"] { #expect(grant.includes(function: name)) }
        for name in ["echoes", "mail", "", "Mail.send", "MAIL.X"] {
            #expect(!grant.includes(function: name), "\(name)")
        }
        #expect(AccessGrant(principal: "a", rights: .submit).includes(function: "whatever"))
        let all = try #require(try self.parse("web \(Self.key) submit functions=*").grant(of: Self.key))
        #expect(all.includes(function: "whatever") && !all.mayCallAnything)
        // A beginning that ends within a character of a name isn't one.
        let accent = try #require(try self.parse("web \(Self.key) submit functions=e*").grant(of: Self.key))
        #expect(accent.includes(function: "e\u{301}x") && !accent.includes(function: "\u{e9}"))
    }

    @Test("what a key may not do is said with the right and whose line it is")
    func refusals() {
        var grant = AccessGrant(principal: "web", rights: [.submit, .work, .cancel])
        #expect(grant.mayCallAnything && grant.problem(submitting: "f", to: "q") == nil)
        #expect(grant.problem(offering: ["f"], in: ["q"]) == nil && grant.problem(cancelling: "f", in: "q") == nil)
        grant.functions = FunctionNames(["f"])
        grant.queues = [""]
        #expect(grant.problem(submitting: "f", to: "") == nil && grant.problem(submitting: nil, to: "") == nil)
        for (problem, parts) in [
            (grant.problem(submitting: "g", to: ""), ["web may not call g", "right submit", "functions"]),
            (grant.problem(submitting: "f", to: "q"), ["web may not use the queue q", "right submit", "queues"]),
            (grant.problem(offering: ["f", "g"], in: [""]), ["web may not offer g", "right work", "functions"]),
            (grant.problem(offering: ["f"], in: ["q"]), ["web may not serve the queue q", "right work", "queues"]),
            (grant.problem(cancelling: "g", in: ""), ["may not cancel calls of g", "right cancel", "functions"]),
            (grant.problem(cancelling: "f", in: "q"), ["may not cancel calls in the queue q", "right cancel"]),
        ] {
            for part in parts { #expect(problem?.contains(part) == true, "\(problem ?? "none"): \(part)") }
        }
        grant.rights = []
        #expect(grant.problem(submitting: "f", to: "")?.contains("lacks the right submit") == true)
        #expect(grant.problem(offering: ["f"], in: [""])?.contains("lacks the right work") == true)
        #expect(grant.problem(cancelling: "f", in: "")?.contains("lacks the right cancel") == true)
    }

    @Test("an entry is written as it is read, added behind and taken out, and all else stays")
    func editing() throws {
        var grant = AccessGrant(principal: "web", rights: [.submit, .cancel], queues: ["", "mail"])
        grant.functions = FunctionNames(["mail.*", "echo"])
        let entry = AccessEntry(key: Self.key, grant: grant)
        let text = "# ours\npool \(Self.other) work"
        let longer = AccessList.adding(entry, to: text)
        #expect(longer == text + "\n" + entry.line + "\n")
        #expect(try self.parse(longer).grant(of: Self.key) == grant)
        #expect(AccessList.removing(keys: [Self.key], from: longer) == text + "\n")
        #expect(AccessList.removing(keys: [Self.other], from: longer) == "# ours\n" + entry.line + "\n")
        #expect(AccessList.removing(keys: [], from: longer) == longer)
    }

    @Test("a line may name a tenant and quotas, in any order, and is written as it is read")
    func quotas() throws {
        let columns = "rate=100 tenant=shop functions=mail.* queues=mail calls=64k bytes=2G priority=7 clients=0"
        let line = "web \(Self.key) submit \(columns)"
        let grant = try #require(try self.parse(line).grant(of: Self.key))
        #expect(grant.group == "shop" && grant.queues == ["mail"] && grant.functions?.words == ["mail.*"])
        #expect(grant.quotas.rate == 100 && grant.quotas.calls == 65_536 && grant.quotas.bytes == 2 << 30)
        #expect(grant.quotas.priority == 7 && grant.quotas.clients == 0 && grant.quotas.workers == nil)
        #expect(try self.parse(AccessEntry(key: Self.key, grant: grant).line).grant(of: Self.key) == grant)
        // A group is another tenant than a principal of its name.
        #expect(grant.claim.name != AccessGrant(principal: "shop", rights: .submit).claim.name)
        #expect(AccessGrant(principal: "shop", rights: .submit).claim.name == "shop")
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
