// SPDX-License-Identifier: Apache-2.0

/// How the values of one type are written.
///
/// Finding out takes casts that cost microseconds each, most of all the one to a collection of bytes.
class EncodingPlan {
    fileprivate init() {}

    /// Writes a value, which must be of the plan's type.
    func encode<Value: Encodable>(
        _ value: Value,
        in session: EncodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws {
        preconditionFailure("a plan says how")
    }

    func dismantle() {}

    /// The plan of a type: a shorter way than `encode(to:)` if there is one.
    static func plan<Value: Encodable>(of type: Value.Type) -> EncodingPlan {
        func wire<Wire: WireCodable>(_ type: Wire.Type) -> EncodingPlan { WirePlan<Wire>() }
        func bytes<Bytes: RangeReplaceableCollection<UInt8>>(_ type: Bytes.Type) -> EncodingPlan { BytesPlan<Bytes>() }
        func parts<Parts: EncodableParts>(_ type: Parts.Type) -> EncodingPlan { PartsPlan<Parts>() }
        if let type = type as? any WireCodable.Type { return wire(type) }
        if let type = type as? any RangeReplaceableCollection<UInt8>.Type { return bytes(type) }
        if let type = type as? any EncodableParts.Type { return parts(type) }
        return CodablePlan()
    }
}

/// Lets values write themselves.
private final class CodablePlan: EncodingPlan {
    private let node = EncodingNode()

    override func encode<Value: Encodable>(
        _ value: Value,
        in session: EncodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws {
        let reference = try unsafe session.open(self.node, at: step)
        try unsafe reference._withUnsafeGuaranteedRef { frame in
            let outer = session.innermost
            session.innermost = ObjectIdentifier(frame)
            defer {
                session.innermost = outer
                session.level &-= 1
                unsafe frame.giveBack(reference)
            }
            try value.encode(to: PackEncoder(link: frame.link))
            try frame.finish()
        }
    }

    override func dismantle() { self.node.dismantle() }
}

private final class WirePlan<Wire: WireCodable>: EncodingPlan {
    override init() {}

    override func encode<Value: Encodable>(
        _ value: Value,
        in session: EncodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws {
        try unsafe withUnsafePointer(to: value) { value in
            try unsafe value.withMemoryRebound(to: Wire.self, capacity: 1) { value in
                try unsafe value.pointee.pack(into: &session.writer.pointee)
            }
        }
    }
}

/// Collections of bytes, such as Foundation's `Data`, are written as bytes.
private final class BytesPlan<Bytes: RangeReplaceableCollection<UInt8>>: EncodingPlan {
    override init() {}

    override func encode<Value: Encodable>(
        _ value: Value,
        in session: EncodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws {
        let bytes = unsafe unsafeBitCast(value, to: Bytes.self)
        let done: Void? = try bytes.withContiguousStorageIfAvailable { buffer in
            try unsafe session.writer.pointee.pack(UnsafeRawBufferPointer(buffer))
        }
        if done == nil { try unsafe session.writer.pointee.pack([UInt8](bytes)) }
    }
}

private final class PartsPlan<Parts: EncodableParts>: EncodingPlan {
    override init() {}

    override func encode<Value: Encodable>(
        _ value: Value,
        in session: EncodingSession,
        at step: UnsafePointer<PathStep>?
    ) throws {
        try unsafe withUnsafePointer(to: value) { value in
            try unsafe value.withMemoryRebound(to: Parts.self, capacity: 1) { value in
                try unsafe value.pointee.encodeParts(in: session, at: step)
            }
        }
    }
}

/// Values that consist of others, not all of them ``WireCodable``: the plan for those is looked up once for all.
private protocol EncodableParts {
    func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws
}

extension Optional: EncodableParts where Wrapped: Encodable {
    fileprivate func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws {
        guard let value = self else {
            try unsafe session.writer.pointee.packNil()
            return
        }
        try unsafe session.plan(of: Wrapped.self).encode(value, in: session, at: step)
    }
}

extension EncodingSession {
    /// Writes elements whose number is known beforehand.
    fileprivate func encode<Element: Encodable>(
        elements: UnsafeBufferPointer<Element>,
        at outer: UnsafePointer<PathStep>?
    ) throws {
        try unsafe self.writer.pointee.enter()
        try unsafe self.writer.pointee.packArrayHeader(elements.count)
        let plan = self.plan(of: Element.self)
        var step = unsafe PathStep(intoElementsOf: outer)
        try unsafe withUnsafeMutablePointer(to: &step) { step in
            guard var element = elements.baseAddress else { return }
            do {
                // By address, because a collection's own iteration looks up its types for each element.
                for index in 0..<elements.count {
                    unsafe step.pointee.index = index
                    try unsafe plan.encode(element.pointee, in: self, at: step)
                    unsafe element += 1
                }
            } catch {
                let count = unsafe PathStep.count(to: step)
                throw unsafe CodecError(encoding: error, below: count).under(index: step.pointee.index)
            }
        }
        unsafe self.writer.pointee.leave()
    }
}

extension Array: EncodableParts where Element: Encodable {
    fileprivate func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws {
        try unsafe self.withUnsafeBufferPointer { elements in try unsafe session.encode(elements: elements, at: step) }
    }
}

extension ContiguousArray: EncodableParts where Element: Encodable {
    fileprivate func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws {
        try unsafe self.withUnsafeBufferPointer { elements in try unsafe session.encode(elements: elements, at: step) }
    }
}

extension Set: EncodableParts where Element: Encodable {
    fileprivate func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws {
        try unsafe Array(self).encodeParts(in: session, at: step)
    }
}

/// A dictionary whose keys are ``WireCodable`` keeps them as they are, where `Codable` turns integers into text.
extension Dictionary: EncodableParts where Key: WireCodable, Value: Encodable {
    fileprivate func encodeParts(in session: EncodingSession, at step: UnsafePointer<PathStep>?) throws {
        try unsafe session.writer.pointee.enter()
        try unsafe session.writer.pointee.packMapHeader(self.count)
        let plan = session.plan(of: Value.self)
        for (key, value) in self {
            try unsafe key.pack(into: &session.writer.pointee)
            let entry = EntryKey(key)
            try unsafe withUnsafePointer(to: entry) { entry in
                let inner = unsafe PathStep(to: entry, inEntriesOf: step)
                try unsafe withUnsafePointer(to: inner) { inner in
                    do {
                        try unsafe plan.encode(value, in: session, at: inner)
                    } catch {
                        throw unsafe CodecError(encoding: error, below: PathStep.count(to: inner))
                            .under(entry.pointee)
                    }
                }
            }
        }
        unsafe session.writer.pointee.leave()
    }
}
