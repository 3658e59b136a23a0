// expect: nothing
// SPDX-License-Identifier: Apache-2.0

// The proper use: if this didn't compile, the other cases would prove nothing.

import DroverZMQ

func run(in context: Context) throws -> LoopThread {
    try LoopThread.start(named: "owner") {
        guard let socket = try? Socket(.dealer, in: context) else { return }
        var message = Message(copying: [1, 2, 3])
        _ = try? socket.send(&message)
    }
}
