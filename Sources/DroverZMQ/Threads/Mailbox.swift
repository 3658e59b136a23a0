// SPDX-License-Identifier: Apache-2.0

package import Synchronization

/// The link that chains an object into a mailbox; an object has one for each mailbox it can be in at the same time.
///
/// It is atomic only so that `Sendable` can be checked: relaxed accesses are plain moves, and the mailbox's head orders
/// them.
package struct MailboxLink: ~Copyable, Sendable {
    @usableFromInline let next = Atomic<UInt>(0)

    @inlinable package init() {}
}

/// An object that can be posted to a ``Mailbox``.
///
/// Write `let mailboxLink = MailboxLink()`. An object may be in one mailbox at a time, and again after it was taken
/// out.
package protocol MailboxNode: AnyObject, Sendable {
    var mailboxLink: MailboxLink { get }
}

/// A lock-free queue from many threads to one.
///
/// Producers push onto a stack; the consumer takes the whole stack at once and reverses it, so what one thread pushed
/// comes out in order. The mailbox owns what is in it: a push retains, and the chain that is taken releases.
///
/// **Sleep.** The consumer sleeps in a poll on the waker's descriptor:
///
///     if mailbox.prepareToSleep() { poll }        // false: something is there, don't sleep
///     mailbox.didWake(isSignalled: poll.isReadable(entry))
///     var chain = mailbox.takeAll()
///
/// **Why nothing is lost.** A producer does (P1) the exchange that puts its node on the stack, then, if the stack was
/// empty, (P2) reads `sleeping`. The consumer (C1) sets `sleeping`, then (C2) reads the head. All four are sequentially
/// consistent, so they have a single order. If C2 finds the stack empty, the next push comes after C2 in that order; it
/// finds the stack empty, and its P2, coming after C1, finds `sleeping` set (or cleared by another producer that found
/// it set, which then writes the eventfd). So each sleep on an empty stack is ended by the first push after it. A push
/// onto a stack that isn't empty needs no P2: the push below it does that, or C2 saw that push and didn't sleep.
///
/// **Why the contents are visible.** A push (also) releases, a take acquires; pushes in between are read-modify-writes
/// and continue the release sequence. So the consumer sees everything that each producer wrote before its push, the
/// links included. There is no ABA problem: single nodes are never popped, and a push that sees the same head twice
/// links to the head that is there.
package final class Mailbox<Node: MailboxNode>: Sendable {
    @usableFromInline let head = Atomic<UInt>(0)
    @usableFromInline let sleeping = Atomic<Bool>(false)

    /// Wakes the consumer, and not only for the mailbox.
    package let waker: Waker

    /// Creates an empty mailbox.
    ///
    /// - Throws: ``ZMQError`` if no descriptor is left for the waker.
    package convenience init() throws(ZMQError) {
        self.init(waker: try Waker())
    }

    /// Creates an empty mailbox that wakes its consumer through `waker`, which several of a thread's mailboxes may
    /// share.
    package init(waker: Waker) {
        self.waker = waker
    }

    deinit {
        _ = self.takeAll()
    }

    /// Posts an object; any thread may call this, and it never waits.
    ///
    /// The consumer is woken only if it is asleep.
    @inlinable package func push(_ node: consuming Node) {
        if self.post(node) { self.wakeConsumer() }
    }

    /// Posts an object without waking the consumer.
    ///
    /// - Returns: Whether the consumer is asleep. If so, wake it with ``wakeConsumer()``, unless another thread takes
    ///   out what is there in its place.
    @inlinable package func post(_ node: consuming Node) -> Bool {
        let pointer = unsafe UInt(bitPattern: Unmanaged.passRetained(node).toOpaque())
        let link = unsafe Unmanaged<Node>.fromOpaque(UnsafeRawPointer(bitPattern: pointer).unsafelyUnwrapped)
        var old = self.head.load(ordering: .relaxed)
        while true {
            unsafe link._withUnsafeGuaranteedRef { $0.mailboxLink.next.store(old, ordering: .relaxed) }
            let result = self.head.weakCompareExchange(
                expected: old,
                desired: pointer,
                successOrdering: .sequentiallyConsistent,
                failureOrdering: .relaxed
            )
            if result.exchanged { break }
            old = result.original
        }
        return old == 0 && self.sleeping.load(ordering: .sequentiallyConsistent)
    }

    /// Takes out everything that is there, oldest first; only for the consumer, or a thread standing in while it
    /// sleeps.
    @inlinable package func takeAll() -> MailboxChain<Node> {
        // Without this check, an empty mailbox would cost a locked instruction on each turn of the loop.
        guard self.head.load(ordering: .relaxed) != 0 else { return MailboxChain(first: 0) }
        var rest = self.head.exchange(0, ordering: .acquiring)
        var reversed: UInt = 0
        while let pointer = unsafe UnsafeRawPointer(bitPattern: rest) {
            unsafe Unmanaged<Node>.fromOpaque(pointer)
                ._withUnsafeGuaranteedRef { node in
                    let next = node.mailboxLink.next.load(ordering: .relaxed)
                    node.mailboxLink.next.store(reversed, ordering: .relaxed)
                    reversed = rest
                    rest = next
                }
        }
        return MailboxChain(first: reversed)
    }

    /// Takes out what is left when the consumer is gone for good; called by the consumer when it leaves, and by every
    /// producer that finds it gone after its push.
    ///
    /// An object left behind that holds the mailbox would keep both alive forever. Nothing is left if the consumer
    /// announces that it is gone, the producer checks for that after its push, and both are sequentially consistent:
    /// then either the consumer's check here comes after the push, or the producer finds the consumer gone. Chains are
    /// taken whole, so several threads may be here at once.
    package func takeRest() -> MailboxChain<Node> {
        guard self.head.load(ordering: .sequentiallyConsistent) != 0 else { return MailboxChain(first: 0) }
        return self.takeAll()
    }

    /// Whether the mailbox is empty at the moment.
    @inlinable package var isEmpty: Bool { self.head.load(ordering: .relaxed) == 0 }

    /// The object posted last, as a number to compare: as long as it changes, producers are busy.
    @inlinable package var newest: UInt { self.head.load(ordering: .relaxed) }

    /// Announces that the consumer is going to sleep.
    ///
    /// - Returns: Whether it may sleep. If not, the mailbox isn't empty.
    package func prepareToSleep() -> Bool {
        self.sleeping.store(true, ordering: .sequentiallyConsistent)
        if self.head.load(ordering: .sequentiallyConsistent) == 0 { return true }
        self.sleeping.store(false, ordering: .relaxed)
        return false
    }

    /// Ends what ``prepareToSleep()`` announced, after the poll.
    ///
    /// - Parameter isSignalled: Whether the poll found the waker readable; draining it costs a system call.
    package func didWake(isSignalled: Bool = true) {
        self.sleeping.store(false, ordering: .relaxed)
        // A producer may have claimed the wake-up but write later. Then the next poll finds the waker readable and
        // returns once for nothing. So the flag says nothing about the descriptor; only the poll does.
        if isSignalled { self.waker.drain() }
    }

    /// Wakes the consumer if it is asleep and no other thread has woken it.
    ///
    /// Kept separate from `push`, which is inlined, because this is the rare case.
    package func wakeConsumer() {
        // Of several producers, only one writes.
        if self.sleeping.exchange(false, ordering: .sequentiallyConsistent) { self.waker.wake() }
    }
}

/// The objects taken out of a mailbox, oldest first; those not taken from the chain are released with it.
package struct MailboxChain<Node: MailboxNode>: ~Copyable {
    @usableFromInline var first: UInt

    @inlinable init(first: UInt) {
        self.first = first
    }

    @inlinable deinit {
        var rest = self.first
        while let node = Self.pop(&rest) { _ = node }
    }

    /// Whether nothing is left.
    @inlinable package var isEmpty: Bool { self.first == 0 }

    /// Takes the next object out of the chain.
    @inlinable package mutating func next() -> Node? {
        Self.pop(&self.first)
    }

    @inlinable static func pop(_ first: inout UInt) -> Node? {
        guard let pointer = unsafe UnsafeRawPointer(bitPattern: first) else { return nil }
        let node = unsafe Unmanaged<Node>.fromOpaque(pointer).takeRetainedValue()
        // Read before the node is handed out, because it may then be posted again.
        first = node.mailboxLink.next.load(ordering: .relaxed)
        return node
    }
}
