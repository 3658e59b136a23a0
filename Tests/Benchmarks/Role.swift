// SPDX-License-Identifier: Apache-2.0

import Foundation

/// What a child process of the harness does.
enum Role: Sendable {
    /// On the main thread, where waiting is allowed.
    case blocking(@Sendable (_ arguments: [String]) throws -> Void)
    /// On the cooperative pool.
    case concurrent(@concurrent @Sendable (_ arguments: [String]) async throws -> Void)

    static func play(_ name: String, arguments: [String]) async throws {
        guard let role = DroverRows.roles[name] else { throw Failure("no role is called '\(name)'") }
        self.endWithParent()
        switch role {
        case .blocking(let run): try run(arguments)
        case .concurrent(let run): try await run(arguments)
        }
    }

    /// Ends this process when the harness is gone: it holds the other end of standard input and never writes to it.
    private static func endWithParent() {
        Thread.detachNewThread {
            var byte: UInt8 = 0
            while true {
                let count = read(STDIN_FILENO, &byte, 1)
                if count == 0 || (count < 0 && errno != EINTR) { _exit(EXIT_FAILURE) }
            }
        }
    }
}
