// SPDX-License-Identifier: Apache-2.0

internal import DroverCore

/// A client's calls: what the machine knows of them, and their handles by slot.
///
/// The running poller has it; between two pollers it rests with the client.
struct CallTable: ~Copyable, Sendable {
    var machine: ClientMachine
    private var handles: [AnyAsyncResult?] = []

    init(endpointCount: Int, configuration: ClientMachine.Configuration) {
        self.machine = ClientMachine(endpointCount: endpointCount, configuration: configuration)
    }

    mutating func put(_ handle: consuming AnyAsyncResult, in slot: UInt32) {
        while self.handles.count <= Int(slot) { self.handles.append(nil) }
        self.handles[Int(slot)] = handle
    }

    /// The handle in a slot, which is empty afterwards.
    mutating func take(_ slot: UInt32) -> AnyAsyncResult? {
        var handle: AnyAsyncResult?
        swap(&handle, &self.handles[Int(slot)])
        return handle
    }

    func handle(in slot: UInt32) -> AnyAsyncResult? { self.handles[Int(slot)] }

    /// All handles, in the order of their slots.
    var openHandles: [AnyAsyncResult] { self.handles.compactMap { $0 } }

    /// The call table itself, for the thread that serves the client next.
    mutating func leave() -> CallTable {
        let empty = CallTable(endpointCount: 0, configuration: .init())
        let left = consume self
        self = empty
        return left
    }

    /// Gives back memory that only a peak needed.
    mutating func trim() {
        guard self.machine.callCount == 0 else { return }
        self.handles = []
        self.machine.trim()
    }
}
