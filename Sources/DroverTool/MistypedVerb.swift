// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DroverCore

/// A verb that doesn't exist, and the one that was probably meant.
struct MistypedVerb {
    /// What was typed, up to the wrong word.
    let typed: String
    /// What was probably meant, with the words before it; nil if nothing comes close.
    let meant: String?
    /// The command whose help lists the verbs.
    let command: String

    /// Finds the first word that should be a verb and isn't; nil if there is none.
    ///
    /// - Parameter arguments: The command line, without the program's name.
    init?(in arguments: [String]) {
        var path: [String] = []
        var verbs = Self.verbs(of: DroverCommand.self)
        for word in arguments {
            // Options come after the verbs.
            guard !verbs.isEmpty, !word.hasPrefix("-"), word != "help" else { return nil }
            guard let next = verbs[word] else {
                self.typed = (path + [word]).joined(separator: " ")
                self.command = (["drover"] + path).joined(separator: " ")
                let near = Self.nearest(to: word, among: verbs.keys.sorted())
                let parent = path.isEmpty ? Self.parent(of: word) : nil
                self.meant =
                    parent.map { "\($0) \(word)" } ?? near.map { (path + [$0]).joined(separator: " ") }
                return
            }
            path.append(word)
            verbs = Self.verbs(of: next)
        }
        return nil
    }

    var description: String {
        let hint = self.meant.map { "; did you mean \"drover \($0)\"?" } ?? ""
        let typed = PeerText.legible(self.typed, maxBytes: 100)
        return "Error: there is no \"drover \(typed)\"\(hint)\n\"\(self.command) --help\" lists what there is."
    }

    private static func verbs(of command: any ParsableCommand.Type) -> [String: any ParsableCommand.Type] {
        let named = command.configuration.subcommands.map { ($0.configuration.commandName ?? "", $0) }
        return Dictionary(named) { first, _ in first }
    }

    /// The command that has the word as one of its own verbs, such as "workers" for "stop".
    private static func parent(of word: String) -> String? {
        let commands = Self.verbs(of: DroverCommand.self)
        return commands.keys.sorted().first { name in commands[name].map { Self.verbs(of: $0)[word] != nil } ?? false }
    }

    private static func nearest(to word: String, among names: [String]) -> String? {
        let near = names.map { (name: $0, distance: self.distance(Array(word.utf8), Array($0.utf8))) }
            .min { $0.distance < $1.distance }
        // Up to a third of the letters may be wrong.
        guard let near, near.distance <= max(1, near.name.utf8.count / 3) else { return nil }
        return near.name
    }

    /// How many letters must be added, removed, replaced, or swapped with a neighbor.
    private static func distance(_ one: [UInt8], _ other: [UInt8]) -> Int {
        // Nothing comes close to a longer word.
        guard one.count < 64 else { return .max }
        var rows = [Array(0...other.count)]
        for row in 0..<one.count {
            var next = [row + 1]
            for column in 0..<other.count {
                var least = min(rows[row][column + 1] + 1, next[column] + 1)
                least = min(least, rows[row][column] + (one[row] == other[column] ? 0 : 1))
                if row > 0, column > 0, one[row] == other[column - 1], one[row - 1] == other[column] {
                    least = min(least, rows[row - 1][column - 1] + 1)
                }
                next.append(least)
            }
            rows.append(next)
        }
        return rows[one.count][other.count]
    }
}
