// expect: instance method 'bind' is unavailable from asynchronous contexts
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func use(_ socket: consuming sending Socket) {
    Task {
        try socket.bind("inproc://task")
    }
}
