// SPDX-License-Identifier: Apache-2.0

/// Makes text that a peer wrote safe to show to people: names, functions, queues, labels, error messages.
///
/// Such a text may contain escape sequences that a terminal obeys, line ends that forge a log line, marks that change
/// the direction of the text that follows, or megabytes. Programs get it unchanged, in JSON or through the API.
package enum PeerText {
    /// How many bytes of a text are shown, unless said otherwise.
    package static let maxBytes = 1024

    /// The text with everything unprintable written as `\n`, `\t` or `\u{1B}`, and its end cut off if it is long.
    ///
    /// - Parameters:
    ///   - text: The text that a peer wrote.
    ///   - maxBytes: How many bytes of it are shown; a count of the omitted bytes is appended.
    /// - Returns: One line.
    package static func legible(_ text: String, maxBytes: Int = maxBytes) -> String {
        if text.utf8.count <= maxBytes, text.utf8.allSatisfy({ 0x20...0x7E ~= $0 }) { return text }
        var shown = ""
        var taken = 0
        for scalar in text.unicodeScalars {
            let before = shown.utf8.count
            self.write(scalar, to: &shown)
            // Escapes are longer than the characters they stand for.
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
        // Joins the parts of many emoji, and does nothing else.
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
