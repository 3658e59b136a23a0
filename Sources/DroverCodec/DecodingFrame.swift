// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The field names of a container and the frames that wait for a value; frames look here with each field and value, and
/// it lies in memory of its own, so that they need not count a reference to get there.
@safe
struct DecodingMemory: ~Copyable {
    var keys = PreparedKeys()
    /// The first of the waiting frames, each of which is referenced once here.
    var spare: Unmanaged<DecodingFrame>?
}

/// What is remembered about a container in a type's decoding: its field names and the frame that reads it.
///
/// A type has one, and one more for each nested container that its `init(from:)` asks for.
@safe
final class DecodingNode {
    /// Keeps types that request containers dynamically from making this grow without bound.
    private static let most = 64

    /// The type of the value.
    let type: Any.Type
    let memory: UnsafeMutablePointer<DecodingMemory>
    @safe @exclusivity(unchecked) private var nested: [Int: DecodingNode] = [:]
    @safe @exclusivity(unchecked) private var nodes = 0
    private unowned let root: DecodingNode?

    init(of type: Any.Type, inside root: DecodingNode? = nil) {
        self.type = type
        self.root = root
        unsafe self.memory = .allocate(capacity: 1)
        unsafe self.memory.initialize(to: DecodingMemory())
    }

    deinit {
        self.dismantle()
        unsafe self.memory.deinitialize(count: 1)
        unsafe self.memory.deallocate()
    }

    /// A frame for a value that begins now, with a reference that goes with ``DecodingFrame/giveBack(_:)``.
    @inline(__always)
    func takeFrame(in session: DecodingSession) -> Unmanaged<DecodingFrame> {
        guard let spare = unsafe self.memory.pointee.spare else {
            return unsafe .passRetained(DecodingFrame(self, in: session))
        }
        unsafe spare._withUnsafeGuaranteedRef { frame in
            unsafe self.memory.pointee.spare = frame.nextSpare
            unsafe frame.nextSpare = nil
        }
        return unsafe spare
    }

    /// The node of the nested container at the index of a key.
    func child(_ index: Int) -> DecodingNode {
        if let known = self.nested[index] { return known }
        let root = self.root ?? self
        // Beyond the limit, one node serves them all.
        guard root.nodes < Self.most else { return self }
        let child = DecodingNode(of: self.type, inside: root)
        root.nodes += 1
        self.nested[index] = child
        return child
    }

    func dismantle() {
        while let spare = unsafe self.memory.pointee.spare {
            let frame = unsafe spare.takeRetainedValue()
            unsafe self.memory.pointee.spare = frame.nextSpare
            unsafe frame.nextSpare = nil
            frame.dismantle()
        }
        for child in self.nested.values { child.dismantle() }
    }
}

/// What decoders and containers without keys hold: it ends with the document, whoever keeps them.
final class DecodingLink {
    let frame: DecodingFrame
    @safe @exclusivity(unchecked) fileprivate(set) var isValid = true

    init(_ frame: DecodingFrame) { self.frame = frame }
}

/// One value of the document, and how far it has been read.
///
/// Frames are reused for the next value of their type, and so are the containers that they handed out, if no other code
/// kept them.
@safe
final class DecodingFrame {
    /// A place among the elements of an array or the entries of a map.
    struct Place {
        var index: Int
        var offset: Int
    }

    enum Kind: UInt8 {
        case untouched, single, array, map
    }

    /// The entries of a map whose places are noted as they are skipped.
    private static let mostNoted = 64

    /// The next of the frames that wait for a value; types that contain themselves need several.
    @exclusivity(unchecked) fileprivate var nextSpare: Unmanaged<DecodingFrame>?
    private unowned(unsafe) let node: DecodingNode
    private let memory: UnsafeMutablePointer<DecodingMemory>
    private unowned(unsafe) let session: DecodingSession
    private let place: UnsafeMutablePointer<UnsafeMutablePointer<PackReader>?>
    @safe @exclusivity(unchecked) private(set) var kind = Kind.untouched
    /// Where the value begins.
    @safe @exclusivity(unchecked) private(set) var start = 0
    @safe @exclusivity(unchecked) private var outerDepth = 0
    /// The elements or entries of a container.
    @safe @exclusivity(unchecked) private(set) var count = 0
    @safe @exclusivity(unchecked) private(set) var first = Place(index: 0, offset: 0)
    /// Where the next field is looked for first.
    @safe @exclusivity(unchecked) private(set) var next = Place(index: 0, offset: 0)
    /// The farthest known place.
    @safe @exclusivity(unchecked) private var farthest = Place(index: 0, offset: 0)
    /// The key that is expected next.
    @safe @exclusivity(unchecked) private var expected = 0
    /// Where the keys of the entries before `farthest` are, as far as there is room for them.
    private let noted: UnsafeMutablePointer<Int>
    /// A value before `farthest` whose own end isn't known yet.
    @safe @exclusivity(unchecked) private var pending: DecodingFrame?
    @exclusivity(unchecked) private var step: UnsafePointer<PathStep>?
    /// For a nested container: what it is in, and its key there.
    @safe @exclusivity(unchecked) private var parent: DecodingFrame?
    @safe @exclusivity(unchecked) private var ownKey: (any CodingKey)?
    /// The path to a value that is still held although it is complete.
    @safe @exclusivity(unchecked) private var path: [any CodingKey] = []
    /// Nested containers that were handed out.
    @safe @exclusivity(unchecked) private var nested: [DecodingFrame] = []
    @safe @exclusivity(unchecked) private var ownLink: DecodingLink?
    /// The container of keys that was handed out first, and the type of its keys.
    @safe @exclusivity(unchecked) private var keys: ObjectIdentifier?
    @safe @exclusivity(unchecked) private var container: KeptContainer?
    /// The object that the container consists of.
    @exclusivity(unchecked) private var containerObject: UnsafeMutablePointer<AnyObject>?
    @safe @exclusivity(unchecked) private var containerTicket: FrameTicket?
    /// Containers of other keys, as superclasses have them.
    @safe @exclusivity(unchecked) private var others: [(container: KeptContainer?, ticket: FrameTicket)] = []
    /// The first key of a map none of whose keys the type knows.
    @safe @exclusivity(unchecked) private(set) var strangerOffset = -1

    init(_ node: DecodingNode, in session: DecodingSession) {
        unsafe self.node = node
        unsafe self.memory = node.memory
        unsafe self.nextSpare = nil
        unsafe self.session = session
        unsafe self.place = session.place
        unsafe self.step = nil
        unsafe self.containerObject = nil
        unsafe self.noted = .allocate(capacity: Self.mostNoted)
    }

    deinit {
        self.containerTicket?.end()
        for other in self.others { other.ticket.end() }
        unsafe self.noted.deallocate()
    }

    /// The reader, wherever it is.
    var reader: UnsafeMutablePointer<PackReader> {
        @inline(__always) get { unsafe self.place.pointee.unsafelyUnwrapped }
    }

    /// What decoders and containers without keys hold.
    var link: DecodingLink {
        if let link = self.ownLink { return link }
        let link = DecodingLink(self)
        self.ownLink = link
        return link
    }

    var codingPath: [any CodingKey] {
        if let parent = self.parent, let key = self.ownKey { return parent.codingPath + [key] }
        return if let step = unsafe self.step { unsafe PathStep.keys(to: step) } else { self.path }
    }

    // MARK: Life

    /// Begins a value where the reader is.
    @inline(__always)
    func begin(at step: UnsafePointer<PathStep>?) {
        unsafe self.start = self.reader.pointee.position
        unsafe self.outerDepth = self.reader.pointee.depth
        unsafe self.step = step
    }

    func giveBack() { unsafe self.giveBack(.passRetained(self)) }

    /// Lets go of the value and is ready for the next one, unless somebody holds a decoder or container of it.
    ///
    /// - Parameter reference: A reference to the frame itself, which waits with it or is released.
    @inline(__always)
    func giveBack(_ reference: Unmanaged<DecodingFrame>) {
        let isHeld = self.isHeld
        if isHeld || !self.nested.isEmpty || self.parent != nil || !self.others.isEmpty
            || self.strangerOffset >= 0
        {
            self.giveBackParts(isHeld: isHeld)
            if isHeld { return unsafe reference.release() }
        }
        self.kind = .untouched
        self.pending = nil
        unsafe self.nextSpare = self.memory.pointee.spare
        unsafe self.memory.pointee.spare = reference
    }

    private var isHeld: Bool {
        @inline(__always) get {
            if self.ownLink != nil && !isKnownUniquelyReferenced(&self.ownLink) { return true }
            if let object = unsafe self.containerObject, unsafe !isKnownUniquelyReferenced(&object.pointee) {
                return true
            }
            return !self.others.isEmpty && self.others.contains { other in other.container?.isHeld ?? true }
        }
    }

    @inline(never)
    private func giveBackParts(isHeld: Bool) {
        if isHeld {
            self.keep()
        } else {
            for frame in self.nested { frame.giveBack() }
            self.nested = []
            for other in self.others { other.ticket.end() }
            self.others = []
        }
        self.strangerOffset = -1
        self.parent = nil
        self.ownKey = nil
    }

    /// Leaves the value to the code that holds it, with everything nested in it, until its document ends.
    private func keep() {
        self.path = self.codingPath
        unsafe self.step = nil
        self.parent = nil
        self.ownKey = nil
        unsafe self.session.hold(self)
        for frame in self.nested { frame.keep() }
        self.nested = []
    }

    /// The document ended, or all documents did.
    func dismantle() {
        self.ownLink?.isValid = false
        self.ownLink = nil
        self.containerTicket?.end()
        self.containerTicket = nil
        self.container = nil
        unsafe self.containerObject = nil
        for other in self.others { other.ticket.end() }
        self.others = []
        self.pending = nil
    }

    /// The reader, moved to `offset` within the container.
    @inline(__always)
    func reader(at offset: Int) -> UnsafeMutablePointer<PackReader> {
        let reader = unsafe self.reader
        unsafe reader.pointee.position = offset
        unsafe reader.pointee.depth = self.outerDepth &+ 1
        return unsafe reader
    }

    /// The reader, moved to before the value.
    @inline(__always)
    func readerBefore() -> UnsafeMutablePointer<PackReader> {
        let reader = unsafe self.reader
        unsafe reader.pointee.position = self.start
        unsafe reader.pointee.depth = self.outerDepth
        return unsafe reader
    }

    // MARK: The value itself

    /// Reads the value with `body`.
    @inline(__always)
    func single<Value>(_ body: (inout PackReader) throws(CodecError) -> Value) throws(CodecError) -> Value {
        let reader = unsafe self.readerBefore()
        let value = try unsafe body(&reader.pointee)
        self.ended(at: unsafe reader.pointee.position)
        return value
    }

    private func ended(at offset: Int) {
        if self.kind == .untouched {
            self.kind = .single
            self.farthest.offset = offset
        }
    }

    /// Decodes the value as another type.
    func decodeInside<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let reader = unsafe self.readerBefore()
        let value = try unsafe self.session.plan(of: type).decode(type, in: self.session, at: self.step)
        self.ended(at: unsafe reader.pointee.position)
        return value
    }

    // MARK: Containers

    /// Makes the value a container, or finds it to be one already: superclasses share the container.
    @inline(__always)
    func open(_ kind: Kind) throws(CodecError) {
        if self.kind == kind { return }
        let reader = unsafe self.readerBefore()
        self.count =
            kind == .map ? try unsafe reader.pointee.readMapHeader() : try unsafe reader.pointee.readArrayHeader()
        try unsafe reader.pointee.enter()
        self.kind = kind
        self.first = Place(index: 0, offset: unsafe reader.pointee.position)
        self.next = self.first
        self.farthest = self.first
        self.expected = 0
        self.pending = nil
    }

    /// The container of keys, which must be open.
    @inline(__always)
    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedDecodingContainer<Key> {
        if self.keys == ObjectIdentifier(type), let container = self.container {
            return unsafe unsafeDowncast(container, to: KeptContainerOf<KeyedDecodingContainer<Key>>.self).get()
        }
        return self.newContainer(keyedBy: type)
    }

    @inline(never)
    private func newContainer<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedDecodingContainer<Key> {
        let ticket = FrameTicket(to: self)
        let container = KeyedDecodingContainer(MapReader<Key>(ticket: ticket))
        let kept = KeptContainerOf(container)
        if self.container == nil, let kept {
            self.keys = ObjectIdentifier(type)
            self.container = kept
            unsafe self.containerObject = kept.object
            self.containerTicket = ticket
        } else {
            self.others.append((kept, ticket))
        }
        return container
    }

    /// Where the value ends.
    @inline(__always)
    func end() throws(CodecError) -> Int {
        if self.kind == .single || (self.farthest.index == self.count && self.kind != .untouched && self.pending == nil)
        {
            return self.farthest.offset
        }
        return try self.findEnd()
    }

    @inline(never)
    private func findEnd() throws(CodecError) -> Int {
        if self.kind == .untouched {
            let reader = unsafe self.readerBefore()
            try unsafe reader.pointee.skip()
            return unsafe reader.pointee.position
        }
        try self.settle()
        let reader = unsafe self.reader(at: self.farthest.offset)
        for _ in self.farthest.index..<self.count {
            if self.kind == .map { try unsafe reader.pointee.skip() }
            try unsafe reader.pointee.skip()
        }
        self.farthest = Place(index: self.count, offset: unsafe reader.pointee.position)
        return self.farthest.offset
    }

    /// Finds the end of the value that was handed out last.
    private func settle() throws(CodecError) {
        guard let pending = self.pending else { return }
        let end = try pending.end()
        self.pending = nil
        if self.farthest.offset < end { self.farthest.offset = end }
        self.next = self.farthest
    }

    /// Notes that everything before `place` was read.
    @inline(__always)
    func passed(_ place: Place) {
        self.next = place
        if place.index > self.farthest.index { self.farthest = place }
    }

    /// Notes that the value that was located last has been read, up to where the reader is.
    @inline(__always)
    func passed(_ index: Int) {
        self.passed(Place(index: index &+ 1, offset: unsafe self.reader.pointee.position))
    }

    // MARK: Finding fields

    /// Finds the value of a field and puts the reader before it; returns the entry's index, or -1 if there is none.
    @inline(__always)
    func locate<Key: CodingKey>(_ key: Key) throws(CodecError) -> Int {
        if self.pending != nil { try self.settle() }
        let index = self.next.index
        if index < self.count {
            let known = unsafe self.memory.pointee.keys.index(of: key.stringValue, expected: self.expected)
            let reader = unsafe self.reader(at: self.next.offset)
            if known >= 0 {
                self.expected = known &+ 1
                if unsafe reader.pointee.pass(self.memory.pointee.keys.entry(known)) {
                    if index < Self.mostNoted { unsafe self.noted[index] = self.next.offset }
                    return index
                }
            }
        }
        return try self.search(key)
    }

    @inline(never)
    private func search(_ key: any CodingKey) throws(CodecError) -> Int {
        let name = key.stringValue
        let number = key.intValue
        let from = self.next
        if let found = try self.scan(from: from, to: self.count, name: name, number: number) { return found }
        return try self.scan(from: self.first, to: from.index, name: name, number: number) ?? -1
    }

    private func scan(from: Place, to end: Int, name: String, number: Int?) throws(CodecError) -> Int? {
        if from.index >= end { return nil }
        let reader = unsafe self.reader(at: from.offset)
        var index = from.index
        while true {
            if index < Self.mostNoted { unsafe self.noted[index] = reader.pointee.position }
            let isWanted = try unsafe reader.pointee.matchKey(name: name, number: number)
            if isWanted { return index }
            index += 1
            if index < self.farthest.index && index < Self.mostNoted {
                unsafe reader.pointee.position = self.noted[index]
            } else if index == self.farthest.index {
                unsafe reader.pointee.position = self.farthest.offset
            } else {
                try unsafe reader.pointee.skip()
                if index > self.farthest.index {
                    self.farthest = Place(index: index, offset: unsafe reader.pointee.position)
                }
            }
            if index >= end { return nil }
        }
    }

    /// All keys, in the order of the document.
    func allKeys<Key: CodingKey>(_ type: Key.Type) throws(CodecError) -> [Key] {
        let reader = unsafe self.reader(at: self.first.offset)
        var keys: [Key] = []
        for _ in 0..<self.count {
            switch unsafe reader.pointee.peekKind {
            case .string:
                if let key = Key(stringValue: try unsafe reader.pointee.readString()) { keys.append(key) }
            case .integer:
                if let number = Int(exactly: try unsafe reader.pointee.readInt64()), let key = Key(intValue: number) {
                    keys.append(key)
                }
            default:
                try unsafe reader.pointee.skip()
            }
            try unsafe reader.pointee.skip()
        }
        if keys.isEmpty && self.count > 0 { self.strangerOffset = self.first.offset }
        return keys
    }

    /// The name that the map has in place of one that the type knows; nil if that isn't the case.
    var stranger: String? {
        if self.strangerOffset < 0 { return nil }
        let reader = unsafe self.reader(at: self.strangerOffset)
        do {
            return try unsafe reader.pointee.readString(cutAt: 64)
        } catch {
            // A key that isn't text is not a name.
            return nil
        }
    }

    /// The error for a missing field.
    @inline(never)
    func missing(_ key: any CodingKey) -> CodecError {
        CodecError(
            .missingField,
            message: "the field \"\(key.stringValue)\" of \(unsafe self.node.type) is missing; "
                + "make it optional, give it a default in init(from:), or use the same type on both sides"
        )
    }

    // MARK: Values

    /// Decodes a value inside this one, where the reader is.
    @inline(__always)
    func decode<Value: Decodable>(_ type: Value.Type, at step: UnsafePointer<PathStep>) throws -> Value {
        try unsafe self.session.plan(of: type).decode(type, in: self.session, at: step)
    }

    /// Hands out the value at `place` for a nested container.
    func apart(at place: Place, key: any CodingKey, keyIndex: Int) -> DecodingFrame {
        // In most cases the previous one is done, and must not wait for this value's end.
        if self.pending == nil, let last = self.nested.last, !last.isHeld, last.nested.isEmpty {
            self.nested.removeLast()
            last.giveBack()
        }
        let child = unsafe self.node.child(keyIndex).takeFrame(in: self.session).takeRetainedValue()
        _ = unsafe self.reader(at: place.offset)
        unsafe child.begin(at: nil)
        child.parent = self
        child.ownKey = key
        self.nested.append(child)
        if place.index >= self.farthest.index {
            self.farthest = Place(index: place.index + 1, offset: place.offset)
            self.pending = child
        }
        return child
    }

    /// The index of the key that was located last, for what is remembered about its value.
    var lastKeyIndex: Int { self.expected - 1 }
}

extension PackReader {
    /// Reads a map's key; returns whether it is `name` or `number`.
    fileprivate mutating func matchKey(name: String, number: Int?) throws(CodecError) -> Bool {
        switch self.peekKind {
        case .string:
            let range = try self.stringRange()
            self.offset = range.upperBound
            if range.count != name.utf8.count { return false }
            var name = name
            let base = unsafe self.base
            return name.withUTF8 { text in
                guard let text = text.baseAddress, let base = unsafe base else { return range.isEmpty }
                return unsafe memcmp(text, base + range.lowerBound, range.count) == 0
            }
        case .integer where number != nil:
            let (bits, isNegative, size) = try self.wideInteger()
            self.offset += size
            return isNegative ? Int(Int64(bitPattern: bits)) == number : Int(exactly: bits) == number
        default:
            try self.skip()
            return false
        }
    }
}
