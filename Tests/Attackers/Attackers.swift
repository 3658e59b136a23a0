// SPDX-License-Identifier: Apache-2.0

import Foundation

/// All attacks at once, in a process of their own.
///
/// `Attackers ENDPOINT SERVER-KEY PUBLIC-KEY SECRET-KEY SUMMARY` attacks until SIGTERM, and then writes to the file SUMMARY how
/// often each attacker did what it does. In the process of those that are attacked, they would hold locks that all threads of a
/// process share, such as the memory allocator's, while they wait for a processor. `Attackers busy` attacks nobody: it keeps two
/// processors as busy until SIGTERM.
@main
struct Attackers {
    static func main() throws {
        let arguments = CommandLine.arguments
        let isBusyAlone = arguments.count == 2 && arguments[1] == "busy"
        guard arguments.count == 6 || isBusyAlone else { exit(64) }
        // The threads that are made from here on inherit both.
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        unsafe sigaddset(&signals, SIGTERM)
        unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
        // Attackers have processors of their own: here they must not take those of the ones they attack.
        _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19)
        TCPFlood.raiseLimit(to: 8192)
        if isBusyAlone {
            for _ in 0..<2 {
                Thread.detachNewThread { while !Task.isCancelled {} }
            }
            var signal: CInt = 0
            while unsafe sigwait(&signals, &signal) != 0 {}
            return
        }
        let keys = PlainPeer.Keys(own: arguments[3], secret: arguments[4], server: arguments[2])
        let crowd = HostileCrowd(arguments[1], keys)
        var signal: CInt = 0
        while unsafe sigwait(&signals, &signal) != 0 {}
        crowd.end()
        try crowd.summary.write(toFile: arguments[5], atomically: true, encoding: .utf8)
    }
}
