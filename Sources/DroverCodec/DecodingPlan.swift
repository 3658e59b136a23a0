// SPDX-License-Identifier: Apache-2.0

/// How the values of one type are read.
///
/// Finding out takes casts that cost microseconds each, most of all the one to a collection of bytes.
class DecodingPlan {
    fileprivate init() {}

    /// Reads a value of the plan's type, which must be `type`, where the reader is, and leaves it at the value's end.
    func decode<Value: Decodable>(
        _ type: Value.Type,
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Value {
        preconditionFailure("a plan says how")
    }

    func dismantle() {}

    /// The plan of a type: a shorter way than `init(from:)` if there is one.
    static func plan<Value: Decodable>(of type: Value.Type) -> DecodingPlan {
        func wire<Wire: WireCodable>(_ type: Wire.Type) -> DecodingPlan { WirePlan<Wire>() }
        func bytes<Bytes: RangeReplaceableCollection<UInt8>>(_ type: Bytes.Type) -> DecodingPlan { BytesPlan<Bytes>() }
        func parts<Parts: DecodableParts>(_ type: Parts.Type) -> DecodingPlan { PartsPlan<Parts>() }
        if let type = type as? any WireCodable.Type { return wire(type) }
        if let type = type as? any RangeReplaceableCollection<UInt8>.Type { return bytes(type) }
        if let type = type as? any DecodableParts.Type { return parts(type) }
        return CodablePlan(of: type)
    }
}

/// Lets values read themselves.
private final class CodablePlan: DecodingPlan {
    private let node: DecodingNode

    init(of type: Any.Type) {
        self.node = DecodingNode(of: type)
    }

    override func decode<Value: Decodable>(
        _ type: Value.Type,
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Value {
        let depth = unsafe session.reader.pointee.depth
        // Values that wrap values in single-value containers nest without nesting containers.
        if unsafe (session.level &- 4) >> 2 >= session.reader.pointee.limits.maxDepth {
            throw CodecError.tooDeep(unsafe session.reader.pointee.limits.maxDepth)
        }
        session.level &+= 1
        let reference = unsafe self.node.takeFrame(in: session)
        return try unsafe reference._withUnsafeGuaranteedRef { frame in
            unsafe frame.begin(at: step)
            defer {
                session.level &-= 1
                unsafe frame.giveBack(reference)
            }
            do {
                let value = try Value(from: PackDecoder(link: frame.link))
                unsafe session.reader.pointee.position = try frame.end()
                unsafe session.reader.pointee.depth = depth
                return value
            } catch let error as DecodingError {
                throw CodecError.unknownCase(error, of: type, in: frame) ?? error
            }
        }
    }

    override func dismantle() { self.node.dismantle() }
}

extension CodecError {
    /// The error for a case that an enumeration doesn't have; nil if its own decoding threw for another reason.
    fileprivate static func unknownCase(_ error: any Error, of type: Any.Type, in frame: DecodingFrame) -> CodecError? {
        switch error {
        case DecodingError.typeMismatch(let wanted, _) where wanted == type:
            // It asked the map for the cases that it knows.
            guard let name = frame.stranger else { return nil }
            return CodecError(
                .unknownCase,
                message: "\(type) has no case \"\(name)\": add it on this side first",
                cause: error
            )
        case DecodingError.dataCorrupted(let context)
        where frame.kind == .single && context.debugDescription.hasPrefix("Cannot initialize \(type) from invalid "):
            return CodecError(
                .unknownCase,
                message: "\(context.debugDescription): add it on this side first",
                cause: error
            )
        default:
            return nil
        }
    }
}

private final class WirePlan<Wire: WireCodable>: DecodingPlan {
    override init() {}

    override func decode<Value: Decodable>(
        _ type: Value.Type,
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Value {
        try unsafe unpackWire(Wire.self, as: type, from: &session.reader.pointee)
    }
}

private final class BytesPlan<Bytes: RangeReplaceableCollection<UInt8>>: DecodingPlan {
    override init() {}

    override func decode<Value: Decodable>(
        _ type: Value.Type,
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Value {
        let bytes = try unsafe session.reader.pointee.readBinarySlice { raw in unsafe Bytes(raw) }
        return unsafe unsafeBitCast(bytes, to: type)
    }
}

private final class PartsPlan<Parts: DecodableParts>: DecodingPlan {
    override init() {}

    override func decode<Value: Decodable>(
        _ type: Value.Type,
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Value {
        let parts = try unsafe Parts.decodeParts(in: session, at: step)
        return unsafe unsafeBitCast(parts, to: type)
    }
}

/// Values that consist of others, not all of them ``WireCodable``: the plan for those is looked up once for all.
private protocol DecodableParts {
    static func decodeParts(in session: DecodingSession, at step: UnsafePointer<PathStep>?) throws -> Self
}

extension Optional: DecodableParts where Wrapped: Decodable {
    fileprivate static func decodeParts(
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Wrapped? {
        if try unsafe session.reader.pointee.readNil() { return nil }
        return try unsafe session.plan(of: Wrapped.self).decode(Wrapped.self, in: session, at: step)
    }
}

extension DecodingSession {
    /// Reads the elements of an array, at most `most`, to `place`; `initialized` counts them.
    ///
    /// By address, because an array that is appended to looks up its types for each element.
    fileprivate func readElements<Element: Decodable>(
        _ range: Range<Int>,
        by plan: DecodingPlan,
        at step: UnsafeMutablePointer<PathStep>,
        to place: UnsafeMutablePointer<Element>?,
        initialized: inout Int
    ) throws {
        guard var element = unsafe place else { return }
        do {
            for index in range {
                unsafe step.pointee.index = index
                try unsafe element.initialize(to: plan.decode(Element.self, in: self, at: step))
                unsafe element += 1
                initialized &+= 1
            }
        } catch {
            let count = unsafe PathStep.count(to: step)
            throw unsafe CodecError(decoding: error, below: count).under(index: step.pointee.index)
        }
    }

    /// How many of the announced elements to make room for at once: as many as the available bytes justify.
    fileprivate func reservation<Element>(_ count: Int, of type: Element.Type) -> Int {
        let justified = unsafe 8 * self.reader.pointee.remaining / max(MemoryLayout<Element>.stride, 1)
        return min(count, max(PackReader.firstReservation(count), justified))
    }
}

extension Array: DecodableParts where Element: Decodable {
    fileprivate static func decodeParts(
        in session: DecodingSession,
        at outer: UnsafePointer<PathStep>?
    ) throws -> [Element] {
        let count = try unsafe session.reader.pointee.readArrayHeader()
        try unsafe session.reader.pointee.enter()
        let plan = session.plan(of: Element.self)
        var step = unsafe PathStep(intoElementsOf: outer)
        var elements: [Element] = []
        // Not as the block's result, whose type it would look up.
        try unsafe withUnsafeMutablePointer(to: &step) { step in
            let room = session.reservation(count, of: Element.self)
            elements = try unsafe [Element](unsafeUninitializedCapacity: room) { buffer, initialized in
                try unsafe session.readElements(
                    0..<room,
                    by: plan,
                    at: step,
                    to: buffer.baseAddress,
                    initialized: &initialized
                )
            }
            while elements.count < count {
                let more = Swift.min(elements.count, count - elements.count)
                let start = elements.count
                elements += try unsafe [Element](unsafeUninitializedCapacity: more) { buffer, initialized in
                    try unsafe session.readElements(
                        start..<(start + more),
                        by: plan,
                        at: step,
                        to: buffer.baseAddress,
                        initialized: &initialized
                    )
                }
            }
        }
        unsafe session.reader.pointee.leave()
        return elements
    }
}

extension ContiguousArray: DecodableParts where Element: Decodable {
    fileprivate static func decodeParts(
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> ContiguousArray<Element> {
        ContiguousArray(try unsafe [Element].decodeParts(in: session, at: step))
    }
}

extension Set: DecodableParts where Element: Decodable {
    fileprivate static func decodeParts(
        in session: DecodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws -> Set<Element> {
        Set(try unsafe [Element].decodeParts(in: session, at: step))
    }
}

extension Dictionary: DecodableParts where Key: WireCodable, Value: Decodable {
    fileprivate static func decodeParts(
        in session: DecodingSession,
        at outer: UnsafePointer<PathStep>?
    ) throws -> [Key: Value] {
        let count = try unsafe session.reader.pointee.readMapHeader()
        try unsafe session.reader.pointee.enter()
        var entries: [Key: Value] = [:]
        entries.reserveCapacity(PackReader.firstReservation(count))
        let plan = session.plan(of: Value.self)
        for _ in 0..<count {
            let key = try unsafe Key.unpack(from: &session.reader.pointee)
            let entry = EntryKey(key)
            entries[key] = try unsafe withUnsafePointer(to: entry) { entry in
                let step = unsafe PathStep(to: entry, inEntriesOf: outer)
                return try unsafe withUnsafePointer(to: step) { step in
                    do {
                        return try unsafe plan.decode(Value.self, in: session, at: step)
                    } catch {
                        throw unsafe CodecError(decoding: error, below: PathStep.count(to: step)).under(entry.pointee)
                    }
                }
            }
        }
        unsafe session.reader.pointee.leave()
        return entries
    }
}
