// SPDX-License-Identifier: Apache-2.0

/// Reads a value by its `Decodable` conformance.
///
/// Fields may come in any order, and unknown ones are skipped. Fields in the order of their declaration, which is
/// how Drover's encoder writes them, are read in one pass.
@usableFromInline
func decodeValue<Value: Decodable>(_ type: Value.Type, from reader: inout PackReader) throws(CodecError) -> Value {
    let session = ThreadSessions.freeDecoding
    session.isBusy = true
    // Code that keeps a decoder beyond this call must not reach the bytes.
    defer { session.end() }
    let (position, depth) = (reader.position, reader.depth)
    do {
        return try unsafe withUnsafeMutablePointer(to: &reader) { reader in
            unsafe session.reader = reader
            return try unsafe session.plan(of: type).decode(type, in: session, at: nil)
        }
    } catch {
        reader.position = position
        reader.depth = depth
        throw CodecError(decoding: error, below: 0)
    }
}

/// A reader, the values that are being read from it, and what is known about their types.
///
/// One thread uses it at a time, and no method hands one of its variables to code that uses the variable again: that
/// is why they aren't checked for exclusivity.
@safe
final class DecodingSession {
    @safe @exclusivity(unchecked) private var plans = TypeTable<DecodingPlan>()
    /// The session for values inside a value of this one that are decoded with a separate reader.
    private(set) lazy var inner = DecodingSession()
    @safe @exclusivity(unchecked) var isBusy = false
    /// Where values are read from, while there are any; frames look there with each field, without counting a reference
    /// to the session.
    let place: UnsafeMutablePointer<UnsafeMutablePointer<PackReader>?>
    /// How deep values are nested.
    @safe @exclusivity(unchecked) var level = 0
    /// Frames that are held although their value is complete; they can be read from until the document ends.
    @safe @exclusivity(unchecked) private var held: [DecodingFrame] = []

    init() {
        unsafe self.place = .allocate(capacity: 1)
        unsafe self.place.initialize(to: nil)
    }

    deinit {
        // Frames and the containers that they handed out reference each other.
        self.plans.forEach { plan in plan.dismantle() }
        unsafe self.place.deallocate()
    }

    /// Where values are read from, while there are any.
    var reader: UnsafeMutablePointer<PackReader> {
        @inline(__always) get { unsafe self.place.pointee.unsafelyUnwrapped }
        set { unsafe self.place.pointee = newValue }
    }

    func hold(_ frame: DecodingFrame) { self.held.append(frame) }

    /// The top value is complete, or failed.
    func end() {
        unsafe self.place.pointee = nil
        self.level = 0
        self.isBusy = false
        if self.held.isEmpty { return }
        for frame in self.held { frame.dismantle() }
        self.held = []
    }

    /// How values of the type are read.
    @inline(__always)
    func plan<Value: Decodable>(of type: Value.Type) -> DecodingPlan {
        self.plans[type] ?? self.newPlan(of: type)
    }

    @inline(never)
    private func newPlan<Value: Decodable>(of type: Value.Type) -> DecodingPlan {
        let plan = DecodingPlan.plan(of: type)
        self.plans.insert(plan, for: type)
        return plan
    }
}
