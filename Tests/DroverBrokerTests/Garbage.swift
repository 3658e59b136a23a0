// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

/// Sends frames that mean nothing, from a socket of its own: random bytes, and true headers with false contents.
func sendGarbage(to endpoint: String) throws {
    let context = try Context()
    defer { context.terminate() }
    try send(context, to: endpoint)
}

private func send(_ context: Context, to endpoint: String) throws {
    var generator = SystemRandomNumberGenerator()
    let socket = try Socket(.dealer, in: context)
    try socket.set(.linger, .seconds(2))
    try socket.connect(endpoint)
    for number in 0..<200 {
        var bytes = (0..<Int.random(in: 0...120)).map { _ in UInt8.random(in: 0...255, using: &generator) }
        if number.isMultiple(of: 2), bytes.count > 2 {
            // A first byte that is right, and each kind in turn.
            bytes[0] = 0xD1
            bytes[1] = UInt8(number / 2)
        }
        var message = Message(copying: bytes)
        _ = try socket.send(&message, more: number.isMultiple(of: 17))
    }
    var last = Message()
    _ = try socket.send(&last)
}
