// expect: capture of 'socket' with non-Sendable type 'Socket'
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func run(in context: Context) throws {
    let socket = try Socket(.dealer, in: context)
    _ = try LoopThread.start(named: "thief") {
        try? socket.bind("inproc://stolen")
    }
}
