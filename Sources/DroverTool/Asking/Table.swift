// SPDX-License-Identifier: Apache-2.0

import DroverCore

/// A table for people: numbers are right-aligned, words left-aligned.
struct Table {
    struct Column {
        let title: String
        var isNumber = false
    }

    let columns: [Column]
    private(set) var rows: [[String]] = []

    init(_ columns: [Column]) {
        self.columns = columns.map { Column(title: PeerText.legible($0.title), isNumber: $0.isNumber) }
    }

    /// Adds a row, showing only the printable characters of its cells, which may all contain texts from peers.
    mutating func add(_ row: [String]) { self.rows.append(row.map { PeerText.legible($0) }) }

    var lines: [String] {
        let widths = self.columns.indices.map { index in
            max(self.columns[index].title.count, self.rows.map { $0[index].count }.max() ?? 0)
        }
        func line(_ cells: [String]) -> String {
            let padded = cells.indices.map { index in
                let padding = String(repeating: " ", count: widths[index] - cells[index].count)
                return self.columns[index].isNumber ? padding + cells[index] : cells[index] + padding
            }
            let text = padded.joined(separator: "  ")
            return String(text.reversed().drop { $0 == " " }.reversed())
        }
        return [line(self.columns.map { $0.title })] + self.rows.map(line)
    }
}
