// SPDX-License-Identifier: Apache-2.0

/// The field names of a container and the frames that wait for a value; frames look here with each field and value, and
/// it lies in memory of its own, so that they need not count a reference to get there.
@safe
struct EncodingMemory: ~Copyable {
    var keys = PreparedKeys()
    /// The first of the waiting frames, each of which is referenced once here.
    var spare: Unmanaged<EncodingFrame>?
}

/// What is remembered about a container in a type's encoding: its field names and the frame that writes it.
///
/// A type has one, and one more for each nested container that its `encode(to:)` makes.
@safe
final class EncodingNode {
    /// Keeps types that create containers dynamically from making this grow without bound.
    private static let most = 64

    let memory: UnsafeMutablePointer<EncodingMemory>
    @safe @exclusivity(unchecked) private var nested: [Int: EncodingNode] = [:]
    @safe @exclusivity(unchecked) private var nodes = 0
    private unowned let root: EncodingNode?

    init(inside root: EncodingNode? = nil) {
        self.root = root
        unsafe self.memory = .allocate(capacity: 1)
        unsafe self.memory.initialize(to: EncodingMemory())
    }

    deinit {
        self.dismantle()
        unsafe self.memory.deinitialize(count: 1)
        unsafe self.memory.deallocate()
    }

    /// A frame for a value that begins now, with a reference that goes with ``EncodingFrame/giveBack(_:)``.
    @inline(__always)
    func takeFrame(in session: EncodingSession) -> Unmanaged<EncodingFrame> {
        guard let spare = unsafe self.memory.pointee.spare else {
            return unsafe .passRetained(EncodingFrame(self, in: session))
        }
        unsafe spare._withUnsafeGuaranteedRef { frame in
            unsafe self.memory.pointee.spare = frame.nextSpare
            unsafe frame.nextSpare = nil
        }
        return unsafe spare
    }

    /// The node of the nested container at the index of a key.
    func child(_ index: Int) -> EncodingNode {
        if let known = self.nested[index] { return known }
        let root = self.root ?? self
        // Beyond the limit, one node serves them all.
        guard root.nodes < Self.most else { return self }
        let child = EncodingNode(inside: root)
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

/// What containers and encoders hold: it ends with the value that they belong to, even if they are kept.
@safe
final class EncodingLink {
    let frame: EncodingFrame
    private let uncounted: Unmanaged<EncodingFrame>
    @safe @exclusivity(unchecked) fileprivate(set) var isValid = true

    init(_ frame: EncodingFrame) {
        self.frame = frame
        unsafe self.uncounted = .passUnretained(frame)
    }

    /// Gives `body` the frame without counting references, if the value isn't complete.
    @inline(__always)
    func withFrame(_ body: (EncodingFrame) throws -> Void) throws {
        guard self.isValid else { throw CodecError.encoderMisused() }
        try unsafe self.uncounted._withUnsafeGuaranteedRef(body)
    }
}

/// A value, or a nested container, that is being written.
///
/// Frames are reused for the next value of their type, and so are the containers that they handed out, if no other code
/// kept them.
@safe
final class EncodingFrame {
    enum Kind: UInt8 {
        case untouched, single, array, map
    }

    /// A nested container that is written separately, and where it belongs.
    private struct Apart {
        let offset: Int
        let frame: EncodingFrame
        let session: EncodingSession
    }

    /// The next of the frames that wait for a value; types that contain themselves need several.
    @exclusivity(unchecked) fileprivate var nextSpare: Unmanaged<EncodingFrame>?
    private unowned(unsafe) let node: EncodingNode
    private let memory: UnsafeMutablePointer<EncodingMemory>
    @exclusivity(unchecked) private unowned(unsafe) var currentSession: EncodingSession
    @exclusivity(unchecked) private var state: UnsafeMutablePointer<EncodingState>
    @safe @exclusivity(unchecked) private(set) var kind = Kind.untouched
    /// Where the value begins.
    @safe @exclusivity(unchecked) private var start = 0
    @safe @exclusivity(unchecked) private var outerDepth = 0
    /// The elements or entries so far.
    @safe @exclusivity(unchecked) private(set) var count = 0
    /// The key that is expected next.
    @safe @exclusivity(unchecked) private var expected = 0
    /// The value that a nested container belongs to; the value itself if it is one.
    @safe @exclusivity(unchecked) private var owner: ObjectIdentifier?
    @exclusivity(unchecked) private var step: UnsafePointer<PathStep>?
    /// For a nested container: what it is in, and its key there.
    @safe @exclusivity(unchecked) private var parent: EncodingFrame?
    @safe @exclusivity(unchecked) private var ownKey: (any CodingKey)?
    /// The nested container that is being written at the end of this one.
    @safe @exclusivity(unchecked) private var nested: EncodingFrame?
    @safe @exclusivity(unchecked) private var apart: [Apart] = []
    @safe @exclusivity(unchecked) private var ownLink: EncodingLink?
    /// The container of keys that was handed out first, and the type of its keys.
    @safe @exclusivity(unchecked) private var keys: ObjectIdentifier?
    @safe @exclusivity(unchecked) private var container: KeptContainer?
    /// The object that the container consists of.
    @exclusivity(unchecked) private var containerObject: UnsafeMutablePointer<AnyObject>?
    @safe @exclusivity(unchecked) private var containerLink: EncodingLink?
    /// Containers of other keys, as superclasses have them.
    @safe @exclusivity(unchecked) private var others: [(container: KeptContainer?, link: EncodingLink)] = []

    init(_ node: EncodingNode, in session: EncodingSession) {
        unsafe self.node = node
        unsafe self.memory = node.memory
        unsafe self.nextSpare = nil
        unsafe self.currentSession = session
        unsafe self.state = session.state
        unsafe self.step = nil
        unsafe self.containerObject = nil
    }

    var session: EncodingSession {
        @inline(__always) get { unsafe self.currentSession }
    }

    /// Where the value is written to, which must not be complete.
    var writer: UnsafeMutablePointer<PackWriter> {
        @inline(__always) get { unsafe self.state.pointee.writer.unsafelyUnwrapped }
    }

    /// What encoders and containers without keys hold.
    var link: EncodingLink {
        if let link = self.ownLink { return link }
        let link = EncodingLink(self)
        self.ownLink = link
        return link
    }

    var codingPath: [any CodingKey] {
        if let parent = self.parent, let key = self.ownKey { return parent.codingPath + [key] }
        return unsafe PathStep.keys(to: self.step)
    }

    // MARK: Life

    @inline(__always)
    func begin(in session: EncodingSession, at step: UnsafePointer<PathStep>?) {
        unsafe self.currentSession = session
        unsafe self.state = session.state
        unsafe self.start = self.writer.pointee.used
        unsafe self.outerDepth = self.writer.pointee.depth
        unsafe self.step = step
        self.count = 0
        self.expected = 0
        self.owner = ObjectIdentifier(self)
    }

    /// Completes the value.
    @inline(__always)
    func finish() throws(CodecError) {
        if self.nested != nil || !self.apart.isEmpty || self.session.misuse != nil { try self.finishParts() }
        switch self.kind {
        case .map: try self.finishContainer(short: 0x80, code16: 0xDE)
        case .array: try self.finishContainer(short: 0x90, code16: 0xDC)
        // A type without fields.
        case .untouched: try unsafe self.writer.pointee.packMapHeader(0)
        case .single: break
        }
    }

    @inline(__always)
    private func finishContainer(short: UInt8, code16: UInt8) throws(CodecError) {
        try unsafe self.writer.pointee.patchHeader(at: self.start, count: self.count, short: short, code16: code16)
        unsafe self.writer.pointee.depth = self.outerDepth
    }

    @inline(never)
    private func finishParts() throws(CodecError) {
        if let misuse = self.session.misuse {
            self.session.misuse = nil
            throw misuse
        }
        if let nested = self.nested.take() { try nested.end() }
        for child in self.apart.reversed() {
            try child.frame.end()
            try unsafe self.writer.pointee.insert(child.session.writer.pointee, at: child.offset)
        }
        self.apart = []
    }

    /// Completes a nested container.
    private func end() throws(CodecError) {
        defer { self.giveBack() }
        try self.finish()
    }

    func giveBack() { unsafe self.giveBack(.passRetained(self)) }

    /// Lets go of the value, complete or not, and is ready for the next one.
    ///
    /// - Parameter reference: A reference to the frame itself, which waits with it.
    @inline(__always)
    func giveBack(_ reference: Unmanaged<EncodingFrame>) {
        self.kind = .untouched
        if self.nested != nil || !self.apart.isEmpty || self.parent != nil || !self.others.isEmpty { self.dropParts() }
        if self.ownLink != nil && !isKnownUniquelyReferenced(&self.ownLink) {
            self.ownLink?.isValid = false
            self.ownLink = nil
        }
        if let object = unsafe self.containerObject, unsafe !isKnownUniquelyReferenced(&object.pointee) {
            self.dropContainer()
        }
        unsafe self.nextSpare = self.memory.pointee.spare
        unsafe self.memory.pointee.spare = reference
    }

    @inline(never)
    private func dropParts() {
        self.nested.take()?.giveBack()
        for child in self.apart { child.frame.giveBack() }
        self.apart = []
        self.parent = nil
        self.ownKey = nil
        for other in self.others { other.link.isValid = false }
        self.others = []
    }

    @inline(never)
    private func dropContainer() {
        self.containerLink?.isValid = false
        self.containerLink = nil
        self.container = nil
        unsafe self.containerObject = nil
    }

    /// Frames and the containers that they handed out reference each other.
    func dismantle() {
        self.ownLink = nil
        self.containerLink = nil
        self.container = nil
        unsafe self.containerObject = nil
    }

    // MARK: Containers

    /// Throws unless the value is the innermost one, and completes what is nested at its end.
    @inline(__always)
    private func check() throws(CodecError) {
        guard unsafe self.state.pointee.innermost == self.owner else { throw CodecError.encoderMisused() }
        if self.nested != nil { try self.settle() }
    }

    /// Throws unless the container may be written to now.
    @inline(__always)
    func check(_ kind: Kind) throws(CodecError) {
        guard self.kind == kind else { throw CodecError.encoderMisused() }
        try self.check()
    }

    /// Makes the frame a container, or finds it to be one already: superclasses share the container.
    func open(_ kind: Kind) {
        do {
            guard unsafe self.state.pointee.innermost == self.owner else { throw CodecError.encoderMisused() }
            if self.kind == kind { return }
            guard self.kind == .untouched else { throw CodecError.encoderMisused() }
            try unsafe self.writer.pointee.enter()
            // Reserves the header's place; its value is written when the count is known.
            try unsafe self.writer.pointee.packNil()
            self.kind = kind
        } catch {
            self.session.noteMisuse(error)
        }
    }

    /// The container of keys, which must be open.
    @inline(__always)
    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        if self.keys == ObjectIdentifier(type), let container = self.container {
            return unsafe unsafeDowncast(container, to: KeptContainerOf<KeyedEncodingContainer<Key>>.self).get()
        }
        return self.newContainer(keyedBy: type)
    }

    @inline(never)
    private func newContainer<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        let link = EncodingLink(self)
        let container = KeyedEncodingContainer(MapWriter<Key>(link: link))
        let kept = KeptContainerOf(container)
        if self.container == nil, let kept {
            self.keys = ObjectIdentifier(type)
            self.container = kept
            unsafe self.containerObject = kept.object
            self.containerLink = link
        } else {
            self.others.append((kept, link))
        }
        return container
    }

    // MARK: Entries and elements

    /// Writes the name of a field; returns the state to go back to if its value fails.
    @inline(__always)
    func begin(_ name: String) throws(CodecError) -> Int {
        try self.check(.map)
        let mark = unsafe self.writer.pointee.used
        let index = unsafe self.memory.pointee.keys.index(of: name, expected: self.expected)
        if index >= 0 {
            self.expected = index &+ 1
            try unsafe self.writer.pointee.pack(self.memory.pointee.keys.entry(index))
        } else {
            try unsafe self.writer.pointee.pack(name)
        }
        return mark
    }

    /// An entry or element is complete.
    @inline(__always)
    func passed() { self.count &+= 1 }

    /// Removes an entry or element that failed.
    @inline(never)
    func rollBack(to mark: Int) {
        let depth = self.kind == .single || self.kind == .untouched ? self.outerDepth : self.outerDepth + 1
        unsafe self.writer.pointee.rollBack(to: mark, depth: depth)
    }

    /// Writes a value of any type inside this one.
    @inline(__always)
    func encode<Value: Encodable>(_ value: Value, at step: UnsafePointer<PathStep>) throws {
        try unsafe self.session.plan(of: Value.self).encode(value, in: self.session, at: step)
    }

    /// Writes the value itself as a value of another type.
    func encodeSingle<Value: Encodable>(_ value: Value) throws {
        try self.single { try unsafe self.session.plan(of: Value.self).encode(value, in: self.session, at: self.step) }
    }

    /// Writes the one value with `body`.
    @inline(__always)
    func single(_ body: () throws -> Void) throws {
        try self.check(.untouched)
        do {
            try body()
        } catch {
            self.rollBack(to: self.start)
            throw error
        }
        self.kind = .single
    }

    /// Writes the one value with `body`, as bytes that are complete at once.
    @inline(__always)
    func write(_ body: (inout PackWriter) throws(CodecError) -> Void) throws {
        try self.single { try unsafe body(&self.writer.pointee) }
    }

    // MARK: Nested containers

    /// Begins a nested container at the end; the result is useless if no container may begin now.
    func openNested(at key: any CodingKey, hasKey: Bool) -> EncodingLink {
        var index = -1
        do {
            if hasKey {
                _ = try self.begin(key.stringValue)
                index = self.expected - 1
            } else {
                try self.check(.array)
            }
        } catch {
            self.session.noteMisuse(error)
            let useless = EncodingLink(self)
            useless.isValid = false
            return useless
        }
        self.count += 1
        let frame = unsafe self.node.child(index).takeFrame(in: self.session).takeRetainedValue()
        unsafe frame.begin(in: self.session, at: nil)
        frame.owner = self.owner
        frame.parent = self
        frame.ownKey = key
        self.nested = frame
        return frame.link
    }

    /// Completes the nested container, or has it written separately from now on if other code may still write to it.
    @inline(never)
    private func settle() throws(CodecError) {
        guard let nested = self.nested.take() else { return }
        if nested.isHeld {
            try self.move(apart: nested)
        } else {
            try nested.end()
        }
    }

    /// Whether any code can still write to this container or one nested in it.
    private var isHeld: Bool {
        if self.ownLink != nil && !isKnownUniquelyReferenced(&self.ownLink) { return true }
        if let container = self.container, container.isHeld { return true }
        return self.others.contains { other in other.container?.isHeld ?? true } || self.nested?.isHeld ?? false
    }

    private func move(apart nested: EncodingFrame) throws(CodecError) {
        let offset = nested.start
        let session = unsafe EncodingSession(apartFrom: self.session, depth: self.writer.pointee.depth)
        try unsafe self.writer.pointee.withBytes { bytes throws(CodecError) in
            try unsafe session.writer.pointee.append(UnsafeRawBufferPointer(rebasing: bytes[offset...]))
        }
        unsafe self.writer.pointee.rollBack(to: offset, depth: self.outerDepth + 1)
        session.innermost = ObjectIdentifier(nested)
        nested.move(to: session, by: offset, owner: ObjectIdentifier(nested))
        self.apart.append(Apart(offset: offset, frame: nested, session: session))
    }

    private func move(to session: EncodingSession, by offset: Int, owner: ObjectIdentifier) {
        unsafe self.currentSession = session
        unsafe self.state = session.state
        self.start -= offset
        self.owner = owner
        self.apart = self.apart.map { child in
            Apart(offset: child.offset - offset, frame: child.frame, session: child.session)
        }
        self.nested?.move(to: session, by: offset, owner: owner)
    }
}

// MARK: - Writing backwards

extension PackWriter {
    /// Writes the header of a container whose place is the byte at `offset` and whose elements follow it.
    @inline(__always)
    fileprivate mutating func patchHeader(at offset: Int, count: Int, short: UInt8, code16: UInt8) throws(CodecError) {
        if count <= 15, count <= self.limits.maxCount, let base = unsafe self.base {
            unsafe base.storeBytes(of: short | UInt8(truncatingIfNeeded: count), toByteOffset: offset, as: UInt8.self)
        } else {
            try self.patchHeader(at: offset, count: count, code16: code16)
        }
    }

    @inline(never)
    private mutating func patchHeader(at offset: Int, count: Int, code16: UInt8) throws(CodecError) {
        if count > self.limits.maxCount { throw CodecError.tooMany(count, self.limits.maxCount) }
        let extra = count <= 0xFFFF ? 2 : 4
        try self.openGap(of: extra, at: offset + 1)
        unsafe self.withMutableBytes(in: offset..<(offset + 1 + extra)) { head in
            if extra == 2 {
                unsafe head[0] = code16
                unsafe head.storeBytes(of: UInt16(count).bigEndian, toByteOffset: 1, as: UInt16.self)
            } else {
                unsafe head[0] = code16 + 1
                unsafe head.storeBytes(of: UInt32(count).bigEndian, toByteOffset: 1, as: UInt32.self)
            }
        }
    }

    /// Inserts the content of `other` at `offset`.
    fileprivate mutating func insert(_ other: borrowing PackWriter, at offset: Int) throws(CodecError) {
        try self.openGap(of: other.count, at: offset)
        let range = offset..<(offset + other.count)
        unsafe other.withBytes { source in
            unsafe self.withMutableBytes(in: range) { target in unsafe target.copyMemory(from: source) }
        }
    }

    /// Moves the bytes from `offset` on upward by `bytes`.
    private mutating func openGap(of bytes: Int, at offset: Int) throws(CodecError) {
        if bytes == 0 { return }
        let tail = self.count - offset
        _ = try self.appendZeros(bytes)
        unsafe self.withMutableBytes(in: offset..<self.count) { all in
            guard let start = all.baseAddress else { return }
            unsafe (start + bytes).copyMemory(from: start, byteCount: tail)
        }
    }
}
