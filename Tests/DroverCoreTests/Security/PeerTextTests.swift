// SPDX-License-Identifier: Apache-2.0

import DroverCore
import Testing

@Suite("Texts of peers")
struct PeerTextTests {
    @Test(
        "what doesn't print is written as an escape, and what prints stays",
        arguments: [
            ("plain text, 100 %", "plain text, 100 %"), ("", ""), ("Größe 写真", "Größe 写真"),
            ("a\u{1B}[2Jb", #"a\u{1B}[2Jb"#), ("one\ntwo\r\tthree", #"one\ntwo\r\tthree"#),
            ("\u{9B}31m", #"\u{9B}31m"#),
            ("\u{202E}abc", #"\u{202E}abc"#), ("\u{2028}", #"\u{2028}"#), ("\u{7F}\0", #"\u{7F}\u{0}"#),
            ("👩\u{200D}🔧", "👩\u{200D}🔧"), ("\u{FEFF}x", #"\u{FEFF}x"#),
        ]
    )
    func escapes(_ text: String, shown: String) {
        #expect(PeerText.legible(text) == shown)
    }

    @Test("a long text is cut at a character, and says how much is left out")
    func cuts() {
        #expect(PeerText.legible(String(repeating: "a", count: 20), maxBytes: 8) == "aaaaaaaa… (12 bytes more)")
        #expect(PeerText.legible("aaaäöü", maxBytes: 4) == "aaa… (6 bytes more)")
        #expect(PeerText.legible("äöü", maxBytes: 6) == "äöü")
        // Escapes count as they are written.
        #expect(PeerText.legible("a\n\n\u{1B}b", maxBytes: 6) == #"a\n\n… (2 bytes more)"#)
        #expect(PeerText.legible(String(repeating: "\u{1}", count: 5000)).utf8.count < 1100)
        // One cluster of a megabyte.
        let stacked = "e" + String(repeating: "\u{301}", count: 500_000)
        #expect(PeerText.legible(stacked).utf8.count < 1100)
    }
}
