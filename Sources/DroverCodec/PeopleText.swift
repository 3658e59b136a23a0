// SPDX-License-Identifier: Apache-2.0

/// Numbers as people read them.
package enum PeopleText {
    /// A number of bytes, such as `64 MiB`; fractions are rounded up, so that more than a limit looks like more.
    package static func size(_ bytes: Int) -> String {
        if bytes == 1 { return "1 byte" }
        if bytes < 1 << 10 { return "\(bytes) bytes" }
        if bytes == .max { return "any number of bytes" }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        let (unit, shift) = units.last { bytes >> $0.1 >= 1 } ?? units[0]
        let whole = bytes >> shift
        let part = (1 << shift) - 1
        let hundredths = ((bytes & part) * 100 + part) >> shift
        switch hundredths {
        case 0: return "\(whole) \(unit)"
        case 100: return "\(whole + 1) \(unit)"
        default: return "\(whole).\(hundredths < 10 ? "0" : "")\(hundredths) \(unit)"
        }
    }

    /// A time, such as `201 ms` or `2.5 s`.
    package static func time(_ duration: Duration) -> String {
        guard duration >= .zero else { return "no time" }
        // Beyond 2^63 seconds the process would trap.
        guard duration <= .seconds(1 << 40) else { return "any time" }
        let (seconds, attoseconds) = duration.components
        let micros = attoseconds / 1_000_000_000_000
        if seconds == 0, micros < 1000 { return "\(micros) µs" }
        if seconds == 0 {
            return micros % 1000 == 0 || micros > 10_000 ? "\((micros + 500) / 1000) ms" : "\(micros) µs"
        }
        if seconds >= 3600 {
            return "\(seconds / 3600) h" + (seconds / 60 % 60 == 0 ? "" : " \(seconds / 60 % 60) min")
        }
        if seconds >= 60 { return "\(seconds / 60) min" + (seconds % 60 == 0 ? "" : " \(seconds % 60) s") }
        let hundredths = micros / 10_000
        if hundredths == 0 || seconds >= 10 { return "\(seconds) s" }
        let digits = hundredths % 10 == 0 ? "\(hundredths / 10)" : (hundredths < 10 ? "0" : "") + "\(hundredths)"
        return "\(seconds).\(digits) s"
    }
}
