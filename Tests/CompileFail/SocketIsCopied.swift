// expect: 'socket' used after consume
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func run(in context: Context) throws {
    let socket = try Socket(.dealer, in: context)
    let copy = socket
    try socket.bind("inproc://one")
    try copy.bind("inproc://two")
}
