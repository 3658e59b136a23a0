// SPDX-License-Identifier: Apache-2.0

/// One step of the path to a value: a key, or an index.
///
/// The path is rarely needed, so it isn't kept: each step lies on the stack of the function that takes it, and names
/// the one outside it.
@safe
struct PathStep {
    /// Where the step starts: a container of `Codable`'s, or an array or dictionary that is written or read directly.
    @safe
    enum Outside {
        case top
        case container(Unmanaged<AnyObject>)
        case step(UnsafePointer<PathStep>)
    }

    let outside: Outside
    /// The key, of this type; nil for an index.
    let keyType: (any CodingKey.Type)?
    let key: UnsafeRawPointer?
    var index = 0

    /// A step into an array.
    init(intoElementsOf outer: UnsafePointer<PathStep>?) {
        if let outer = unsafe outer { unsafe self.outside = .step(outer) } else { self.outside = .top }
        self.keyType = nil
        unsafe self.key = nil
    }

    /// A step from a container to the value of a key, which must stay where it is.
    init<Key: CodingKey>(to key: UnsafePointer<Key>, outOf outside: Outside) {
        self.outside = outside
        self.keyType = Key.self
        unsafe self.key = UnsafeRawPointer(key)
    }

    /// A step into a dictionary, to the value of a key, which must stay where it is.
    init<Key: CodingKey>(to key: UnsafePointer<Key>, inEntriesOf outer: UnsafePointer<PathStep>?) {
        if let outer = unsafe outer {
            unsafe self.init(to: key, outOf: .step(outer))
        } else {
            unsafe self.init(to: key, outOf: .top)
        }
    }

    /// A step from a container of `Codable`'s to an element.
    init(toElement index: Int, outOf container: AnyObject) {
        unsafe self.outside = .container(Unmanaged.passUnretained(container))
        self.keyType = nil
        unsafe self.key = nil
        self.index = index
    }

    /// The step itself.
    private var codingKey: any CodingKey {
        func load<Key: CodingKey>(_ type: Key.Type, _ key: UnsafeRawPointer) -> any CodingKey {
            unsafe key.assumingMemoryBound(to: type).pointee
        }
        guard let type = self.keyType, let key = unsafe self.key else { return IndexKey(self.index) }
        return unsafe load(type, key)
    }

    /// How many steps the whole path has.
    static func count(to step: UnsafePointer<PathStep>?) -> Int {
        unsafe self.keys(to: step).count
    }

    /// The whole path.
    static func keys(to step: UnsafePointer<PathStep>?) -> [any CodingKey] {
        unsafe self.keys(to: step) { container in
            (container as? EncodingFrame)?.codingPath ?? (container as? DecodingFrame)?.codingPath ?? []
        }
    }

    /// The whole path; `path` returns the path to a container.
    private static func keys(
        to step: UnsafePointer<PathStep>?,
        _ path: (AnyObject) -> [any CodingKey]
    ) -> [any CodingKey] {
        guard let step = unsafe step else { return [] }
        let key = unsafe step.pointee.codingKey
        switch unsafe step.pointee.outside {
        case .top: return [key]
        case .container(let container): return path(unsafe container.takeUnretainedValue()) + [key]
        case .step(let outer): return unsafe self.keys(to: outer, path) + [key]
        }
    }
}
