// expect: instance method 'receive' is unavailable from asynchronous contexts
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func use(_ socket: borrowing Socket, _ pause: () async -> Void) async throws {
    var message = Message()
    _ = try socket.receive(into: &message)
    await pause()
    _ = try socket.receive(into: &message)
}
