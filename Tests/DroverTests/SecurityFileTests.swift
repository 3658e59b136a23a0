// SPDX-License-Identifier: Apache-2.0

import Drover
import Foundation
import Testing

@Suite("Security files")
struct SecurityFileTests {
    @Test("a file stays locked from before it is read until the new one has been read back")
    func locked() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "drover-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        var isLocked: [Bool] = []
        for count in 1...2 {
            try SecurityFile.update(
                path,
                read: { path in
                    isLocked.append(Self.isLocked(path))
                    return try String(contentsOfFile: path, encoding: .utf8)
                },
                change: { $0 + "line\n" }
            )
            #expect(try String(contentsOfFile: path, encoding: .utf8) == String(repeating: "line\n", count: count))
            #expect(!Self.isLocked(path))
        }
        // Each update reads the old file and then the new one.
        #expect(isLocked == [true, true, true, true])
    }

    private static func isLocked(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) != 0
    }
}
