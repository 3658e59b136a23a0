// SPDX-License-Identifier: Apache-2.0

/// The figures of several runs.
struct Sample {
    private var sorted: [Double]

    /// Nothing if there are no figures.
    init?(_ figures: [Double]) {
        if figures.isEmpty { return nil }
        self.sorted = figures.sorted()
    }

    var median: Double {
        let middle = self.sorted.count / 2
        if self.sorted.count.isMultiple(of: 2) { return (self.sorted[middle - 1] + self.sorted[middle]) / 2 }
        return self.sorted[middle]
    }

    /// From the smallest to the largest, as a part of the median.
    var spread: Double {
        let range = self.sorted[self.sorted.count - 1] - self.sorted[0]
        return self.median == 0 ? 0 : range / self.median
    }
}

/// Durations of single calls, of which a role prints the percentiles.
struct Latencies {
    private var nanoseconds: [UInt64] = []

    init(capacity: Int) {
        self.nanoseconds.reserveCapacity(capacity)
    }

    mutating func record(nanoseconds: UInt64) {
        self.nanoseconds.append(nanoseconds)
    }

    /// The line that a role prints.
    func line(role: String) -> String {
        let sorted = self.nanoseconds.sorted()
        guard let longest = sorted.last else { return "role=\(role) count=0" }
        let p50 = Double(sorted[sorted.count / 2]) / 1e3
        let p99 = Double(sorted[sorted.count * 99 / 100]) / 1e3
        return "role=\(role) count=\(sorted.count) p50_us=\(p50) p99_us=\(p99) max_us=\(Double(longest) / 1e3)"
    }
}
