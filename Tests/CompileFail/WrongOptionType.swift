// expect: to expected argument type
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func configure(_ socket: borrowing Socket) throws {
    try socket.set(SocketOption<Duration>.linger, 1_000)
}
