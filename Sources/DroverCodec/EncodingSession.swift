// SPDX-License-Identifier: Apache-2.0

/// Writes a value by its `Encodable` conformance.
///
/// Structures become maps by field name; the bytes go straight into the writer. `Codable` doesn't say how many fields
/// will follow, so each container's header is written when the container is complete.
@usableFromInline
func encodeValue<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    let session = ThreadSessions.freeEncoding
    session.isBusy = true
    defer { session.end() }
    do {
        try unsafe withUnsafeMutablePointer(to: &writer) { writer in
            unsafe session.writer = writer
            try unsafe session.plan(of: Value.self).encode(value, in: session, at: nil)
        }
    } catch {
        throw CodecError(encoding: error, below: 0)
    }
}

/// What a session's frames look at with each field; it lies in memory of its own, so that they need not count a reference
/// to the session to get there.
@safe
struct EncodingState {
    /// Where values are written to, while there are any.
    var writer: UnsafeMutablePointer<PackWriter>?
    /// The innermost value; only its containers may be written to.
    var innermost: ObjectIdentifier?
}

/// A writer, the values that are being written to it, and what is known about their types.
///
/// One thread uses it at a time, and no method hands one of its variables to code that uses the variable again: that
/// is why they aren't checked for exclusivity.
@safe
final class EncodingSession {
    /// How the values of each type are written; sessions of values written separately share it.
    final class Plans {
        @safe @exclusivity(unchecked) var table = TypeTable<EncodingPlan>()

        // Frames and the containers that they handed out reference each other.
        deinit { self.table.forEach { plan in plan.dismantle() } }
    }

    private let plans: Plans
    /// The session for values inside a value of this one that are encoded with a separate writer.
    private(set) lazy var inner = EncodingSession()
    @safe @exclusivity(unchecked) var isBusy = false
    let state: UnsafeMutablePointer<EncodingState>
    /// The first misuse of an encoder in a place that can't throw.
    @safe @exclusivity(unchecked) var misuse: CodecError?
    /// How deep values are nested.
    @safe @exclusivity(unchecked) var level = 0
    /// Whether the writer is the session's own.
    private let ownsWriter: Bool

    init() {
        self.plans = Plans()
        self.ownsWriter = false
        unsafe self.state = .allocate(capacity: 1)
        unsafe self.state.initialize(to: EncodingState())
    }

    /// A session for a container that is written separately because `Codable` allows writing it between its siblings.
    init(apartFrom session: EncodingSession, depth: Int) {
        self.plans = session.plans
        self.level = session.level
        self.ownsWriter = true
        unsafe self.state = .allocate(capacity: 1)
        let writer = UnsafeMutablePointer<PackWriter>.allocate(capacity: 1)
        unsafe writer.initialize(to: PackWriter(placeholderWith: session.writer.pointee.limits))
        unsafe writer.pointee.depth = depth
        unsafe self.state.initialize(to: EncodingState(writer: writer))
    }

    deinit {
        if self.ownsWriter, let writer = unsafe self.state.pointee.writer {
            unsafe writer.deinitialize(count: 1)
            unsafe writer.deallocate()
        }
        unsafe self.state.deallocate()
    }

    /// Where values are written to, while there are any.
    var writer: UnsafeMutablePointer<PackWriter> {
        @inline(__always) get { unsafe self.state.pointee.writer.unsafelyUnwrapped }
        set { unsafe self.state.pointee.writer = newValue }
    }

    /// The innermost value; only its containers may be written to.
    var innermost: ObjectIdentifier? {
        @inline(__always) get { unsafe self.state.pointee.innermost }
        @inline(__always) set { unsafe self.state.pointee.innermost = newValue }
    }

    /// The top value is complete, or failed.
    func end() {
        unsafe self.state.pointee = EncodingState()
        self.misuse = nil
        self.level = 0
        self.isBusy = false
    }

    /// How values of the type are written.
    @inline(__always)
    func plan<Value: Encodable>(of type: Value.Type) -> EncodingPlan {
        self.plans.table[type] ?? self.newPlan(of: type)
    }

    @inline(never)
    private func newPlan<Value: Encodable>(of type: Value.Type) -> EncodingPlan {
        let plan = EncodingPlan.plan(of: type)
        self.plans.table.insert(plan, for: type)
        return plan
    }

    /// Begins a value of a type whose own `encode(to:)` writes it.
    @inline(__always)
    func open(
        _ node: EncodingNode,
        at step: UnsafePointer<PathStep>?
    ) throws(CodecError) -> Unmanaged<EncodingFrame> {
        // Values that wrap values in single-value containers nest without nesting containers.
        if unsafe (self.level &- 4) >> 2 >= self.writer.pointee.limits.maxDepth {
            throw CodecError.tooDeep(unsafe self.writer.pointee.limits.maxDepth)
        }
        self.level &+= 1
        let frame = unsafe node.takeFrame(in: self)
        unsafe frame._withUnsafeGuaranteedRef { unsafe $0.begin(in: self, at: step) }
        return unsafe frame
    }

    func noteMisuse(_ error: any Error) {
        self.misuse = self.misuse ?? CodecError(encoding: error, below: 0)
    }
}
