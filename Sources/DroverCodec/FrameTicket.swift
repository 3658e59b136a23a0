// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Where tickets find their frame; the memory is used again and never given back.
@safe
private struct FrameSlot {
    var frame: Unmanaged<DecodingFrame>?
    /// How often the slot was let.
    var generation: UInt64 = 0
}

/// A frame as a container of keys refers to it.
///
/// The standard library copies the container with each field that is read. A ticket is copied without counting a
/// reference; whoever keeps one beyond its frame's end finds another generation in the slot.
@safe
struct FrameTicket {
    fileprivate let slot: UnsafeMutablePointer<FrameSlot>
    fileprivate let generation: UInt64

    init(to frame: DecodingFrame) {
        let slot = unsafe FrameSlots.take()
        unsafe slot.pointee.frame = .passUnretained(frame)
        unsafe self.generation = slot.pointee.generation
        unsafe self.slot = slot
    }

    /// The frame goes, or gives up the container.
    func end() {
        guard unsafe self.slot.pointee.generation == self.generation else { return }
        unsafe self.slot.pointee.frame = nil
        unsafe self.slot.pointee.generation &+= 1
        unsafe FrameSlots.giveBack(self.slot)
    }

    /// Gives `body` the frame without counting references, if its document is still being read.
    @inline(__always)
    func withFrame<Result>(_ body: (DecodingFrame) throws -> Result) throws -> Result {
        guard unsafe self.slot.pointee.generation == self.generation, let frame = unsafe self.slot.pointee.frame else {
            throw CodecError.decoderKept()
        }
        return try unsafe frame._withUnsafeGuaranteedRef(body)
    }

    /// The frame, if its document is still being read.
    @inline(__always)
    func open() throws(CodecError) -> DecodingFrame {
        guard unsafe self.slot.pointee.generation == self.generation, let frame = unsafe self.slot.pointee.frame else {
            throw CodecError.decoderKept()
        }
        return unsafe frame.takeUnretainedValue()
    }
}

/// The slots of all threads that wait for a frame.
private enum FrameSlots {
    /// Their addresses.
    private static let free = Mutex<[UInt]>([])

    static func take() -> UnsafeMutablePointer<FrameSlot> {
        let address = self.free.withLock { $0.popLast() }
        if let address, let slot = unsafe UnsafeMutablePointer<FrameSlot>(bitPattern: address) { return unsafe slot }
        let slot = UnsafeMutablePointer<FrameSlot>.allocate(capacity: 1)
        unsafe slot.initialize(to: FrameSlot())
        return unsafe slot
    }

    static func giveBack(_ slot: UnsafeMutablePointer<FrameSlot>) {
        let address = UInt(bitPattern: slot)
        self.free.withLock { $0.append(address) }
    }
}
