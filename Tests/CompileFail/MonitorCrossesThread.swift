// expect: capture of 'monitor' with non-Sendable type 'Monitor'
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func run(_ socket: borrowing Socket) throws {
    let monitor = try socket.monitor()
    _ = try LoopThread.start(named: "thief") {
        monitor.stop()
    }
}
