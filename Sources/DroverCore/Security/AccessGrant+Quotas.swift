// SPDX-License-Identifier: Apache-2.0

/// How much a key may use, as columns of an allow-list: `tenant=NAME`, and quotas such as `calls=1000`.
extension AccessGrant {
    /// Takes a column if it is a tenant or a quota.
    ///
    /// - Returns: Whether the column was taken.
    mutating func takeQuota(
        _ column: Substring,
        _ problem: (String) -> SecurityTextError
    ) throws(SecurityTextError) -> Bool {
        guard let end = column.firstIndex(of: "=") else { return false }
        let (name, value) = (column[..<end], column[column.index(after: end)...])
        if name == "tenant" {
            guard self.group == nil else { throw problem("a second tenant=; a key belongs to one") }
            guard AccessList.isName(String(value)) else {
                throw problem("\"\(value)\" is no tenant; use up to 64 letters, digits, and . _ @ -")
            }
            self.group = String(value)
            return true
        }
        guard let quota = Quotas.columns.first(where: { $0.name == name }) else { return false }
        guard self.quotas[keyPath: quota.path] == nil else { throw problem("a second \(name)=; keep one of the two") }
        guard let number = Self.number(value), number >= quota.least, name != "priority" || number <= 7 else {
            let most = name == "priority" ? " to 7" : " or more, perhaps with k, M or G behind it (1024)"
            throw problem("\"\(value)\" is no number for \(name)=; write \(quota.least)\(most)")
        }
        self.quotas[keyPath: quota.path] = number
        return true
    }

    /// A number as people write it: 1000, 64k, 2G.
    private static func number(_ text: Substring) -> Int? {
        var digits = text
        var shift = 0
        if let last = text.last, let unit = ["k": 10, "M": 20, "G": 30][last] {
            digits = text.dropLast()
            shift = unit
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ 0x30...0x39 ~= $0 }), let number = Int(digits) else {
            return nil
        }
        return number <= Int.max >> (shift + 1) ? number << shift : nil
    }

    /// The tenant and quota columns of a line.
    package var quotaColumns: [String] {
        var columns = self.group.map { ["tenant=\($0)"] } ?? []
        for quota in Quotas.columns {
            if let number = self.quotas[keyPath: quota.path] { columns.append("\(quota.name)=\(number)") }
        }
        return columns
    }
}
