// SPDX-License-Identifier: Apache-2.0

/// Makes text that a peer wrote fit for people's eyes: names, functions, queues, labels, messages of errors.
///
/// Such a text may hold escape sequences that a terminal obeys, line ends that forge a line of a log, marks that turn
/// the direction of what follows, and megabytes. Programs are given it as it is, in JSON or by the API.
package enum PeerText {
    /// How many bytes of a text are shown, unless said otherwise.
    package static let maxBytes = 1024

    /// The text with all that doesn't print written as `\n`, `\t` or `\u{1B}`, and its end cut off if it is long.
    ///
    /// - Parameters:
    ///   - text: What a peer wrote.
    ///   - maxBytes: How much of it is shown; what is left out is counted behind it.
    /// - Returns: One line.
    package static func legible(_ text: String, maxBytes: Int = maxBytes) -> String {
        if text.utf8.count <= maxBytes, text.utf8.allSatisfy({ 0x20...0x7E ~= $0 }) { return text }
        var shown = ""
        var taken = 0
        for scalar in text.unicodeScalars {
            let before = shown.utf8.count
            self.write(scalar, to: &shown)
            // Escapes are longer than what they stand for.
            guard shown.utf8.count <= maxBytes else {
                let fitting = String(decoding: shown.utf8.prefix(before), as: UTF8.self)
                return "\(fitting)… (\(text.utf8.count - taken) bytes more)"
            }
            taken += UTF8.width(scalar)
        }
        return shown
    }

    private static func write(_ scalar: Unicode.Scalar, to text: inout String) {
        switch scalar {
        case "\n": text += "\\n"
        case "\r": text += "\\r"
        case "\t": text += "\\t"
        // Joins the parts of many an emoji, and does nothing else.
        case "\u{200D}": text.unicodeScalars.append(scalar)
        default:
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
                text += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
            default: text.unicodeScalars.append(scalar)
            }
        }
    }
}
