// expect: type 'Socket' does not conform to the 'Sendable' protocol
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func share(_ value: borrowing some Sendable & ~Copyable) {}

func run(in context: Context) throws {
    let socket = try Socket(.dealer, in: context)
    share(socket)
}
