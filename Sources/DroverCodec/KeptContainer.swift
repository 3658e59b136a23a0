// SPDX-License-Identifier: Apache-2.0

/// A container of keys that was handed out, kept for the next value of its type.
///
/// `KeyedEncodingContainer` and `KeyedDecodingContainer` allocate an object, and look up three types by their parameters to
/// do so. That costs as much as three fields.
@safe
class KeptContainer {
    /// The object that the container consists of.
    ///
    /// It has memory of its own: for a variable that is never set again, the optimizer would look at a copy and find
    /// two references.
    let object: UnsafeMutablePointer<AnyObject>

    fileprivate init(_ object: AnyObject) {
        unsafe self.object = .allocate(capacity: 1)
        unsafe self.object.initialize(to: object)
    }

    deinit {
        unsafe self.object.deinitialize(count: 1)
        unsafe self.object.deallocate()
    }

    /// Whether the value's own code, or any other code, holds the container too.
    var isHeld: Bool {
        @inline(__always) get { unsafe !isKnownUniquelyReferenced(&self.object.pointee) }
    }
}

/// Generic over the container and not over its keys, so that it has the container's type at hand.
final class KeptContainerOf<Container>: KeptContainer {
    /// Keeps a container, if it consists of one reference, as those of the standard library do.
    init?(_ container: Container) {
        guard MemoryLayout<Container>.size == MemoryLayout<AnyObject>.size else { return nil }
        super.init(unsafe unsafeBitCast(container, to: AnyObject.self))
    }

    /// The container; never inlined, since its caller would look its type up.
    @inline(never)
    func get() -> Container {
        unsafe UnsafeRawPointer(self.object).assumingMemoryBound(to: Container.self).pointee
    }
}
