// SPDX-License-Identifier: Apache-2.0

internal import CDroverZMQ
internal import Glibc
internal import Synchronization

/// Memory for small frames that circulates between the thread that sends and libzmq's I/O threads.
///
/// The sender takes a frame's memory and an I/O thread gives it back. With `malloc`, the two contend for the lock of
/// the sender's arena on every frame, and take turns sleeping on it, which cost half of a small frame's time. Here the
/// I/O thread pushes the block onto a stack with one compare-and-exchange, and the sender takes the whole stack at
/// once.
///
/// A pool belongs to one thread at a time, like the socket its frames go through. It grows up to ``limit`` and keeps
/// what it has; beyond that, and for larger frames, `malloc` is used. It may be freed before its frames are: the last
/// of them frees the memory.
@safe package struct FramePool: ~Copyable {
    /// The largest frame that the pool serves.
    package static let frameBytes = blockBytes - headerBytes
    /// The most blocks a pool has: 1 MiB.
    package static let limit = 4096

    private static let blockBytes = 256
    /// A block begins with the next block's address, then the address of the ``Returns`` it belongs to.
    private static let headerBytes = 16
    private static let slabBlocks = 64

    /// Where blocks are returned; shared with libzmq's threads.
    private final class Returns: Sendable {
        /// The block returned last, 0 for none, or ``Returns/closed``.
        let head = Atomic<UInt>(0)
        /// How many blocks are still out once the pool is gone.
        ///
        /// Blocks that return before that number is known count below zero.
        let outstanding = Atomic<Int>(0)
        /// All the memory, as a list of slabs, newest first; each begins with the address of the one added before it.
        let slabs = Atomic<UInt>(0)

        static let closed: UInt = 1

        deinit {
            var next = self.slabs.load(ordering: .acquiring)
            while let slab = unsafe UnsafeMutableRawPointer(bitPattern: next) {
                next = unsafe slab.load(as: UInt.self)
                unsafe free(slab)
            }
        }
    }

    private let returns = Returns()
    /// The free blocks, chained.
    private var atHand: UInt = 0
    private var blockCount = 0

    package init() {}

    deinit {
        let returned = self.returns.head.exchange(Returns.closed, ordering: .acquiringAndReleasing)
        let free = Self.length(self.atHand) + Self.length(returned)
        let lent = self.blockCount - free
        guard lent > 0 else { return }
        // The blocks that are out keep the memory: the one that brings the count to zero frees it.
        let keeper = unsafe Unmanaged.passRetained(self.returns)
        if self.returns.outstanding.add(lent, ordering: .acquiringAndReleasing).newValue == 0 {
            unsafe keeper.release()
        }
    }

    /// A message with a copy of `bytes`.
    package mutating func message(copying bytes: UnsafeRawBufferPointer) -> Message {
        guard bytes.count > Message.inlineBytes, bytes.count <= Self.frameBytes, let block = unsafe self.take() else {
            return unsafe Message(copying: bytes)
        }
        let place = unsafe block + Self.headerBytes
        unsafe UnsafeMutableRawBufferPointer(start: place, count: bytes.count).copyMemory(from: bytes)
        return unsafe Message(lending: place, count: bytes.count, hint: block) { unsafe FramePool.giveBack($1) }
    }

    /// How many blocks there are, free or in use.
    package var capacity: Int { self.blockCount }

    private mutating func take() -> UnsafeMutableRawPointer? {
        if self.atHand == 0 {
            self.atHand = self.returns.head.exchange(0, ordering: .acquiring)
            if self.atHand == 0 { self.grow() }
        }
        guard let block = unsafe UnsafeMutableRawPointer(bitPattern: self.atHand) else { return nil }
        self.atHand = unsafe block.load(as: UInt.self)
        return unsafe block
    }

    private mutating func grow() {
        guard self.blockCount < Self.limit else { return }
        // The first block's place holds the link to the previous slab.
        guard let slab = unsafe malloc((Self.slabBlocks + 1) * Self.blockBytes) else { return }
        unsafe slab.storeBytes(of: self.returns.slabs.load(ordering: .relaxed), as: UInt.self)
        self.returns.slabs.store(UInt(bitPattern: slab), ordering: .releasing)
        let owner = unsafe UInt(bitPattern: Unmanaged.passUnretained(self.returns).toOpaque())
        for index in 1...Self.slabBlocks {
            let block = unsafe slab + index * Self.blockBytes
            unsafe block.storeBytes(of: self.atHand, as: UInt.self)
            unsafe (block + MemoryLayout<UInt>.size).storeBytes(of: owner, as: UInt.self)
            self.atHand = UInt(bitPattern: block)
        }
        self.blockCount += Self.slabBlocks
    }

    /// Called by libzmq, on any thread, when it is done with a block.
    private static func giveBack(_ hint: UnsafeMutableRawPointer?) {
        guard let block = unsafe hint,
            let owner = unsafe UnsafeRawPointer(
                bitPattern: (block + MemoryLayout<UInt>.size).load(as: UInt.self)
            )
        else { return }
        // A block that is out keeps its `Returns` alive: through the pool while there is one, then through the count.
        unsafe Unmanaged<Returns>.fromOpaque(owner)
            ._withUnsafeGuaranteedRef { returns in
                var head = returns.head.load(ordering: .relaxed)
                while head != Returns.closed {
                    unsafe block.storeBytes(of: head, as: UInt.self)
                    let (isDone, current) = returns.head.weakCompareExchange(
                        expected: head,
                        desired: UInt(bitPattern: block),
                        successOrdering: .releasing,
                        failureOrdering: .relaxed
                    )
                    if isDone { return }
                    head = current
                }
                if returns.outstanding.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
                    unsafe Unmanaged.passUnretained(returns).release()
                }
            }
    }

    private static func length(_ chain: UInt) -> Int {
        var count = 0
        var next = chain
        while let block = unsafe UnsafeRawPointer(bitPattern: next) {
            count += 1
            next = unsafe block.load(as: UInt.self)
        }
        return count
    }
}
