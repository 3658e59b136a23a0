// SPDX-License-Identifier: Apache-2.0

/// Contiguous elements with one owner.
///
/// An `Array` may be shared, and checks for that before each write: a call into the runtime that costs more than the
/// write. This buffer can't be copied and needn't check. Every access is bounds-checked.
///
/// Element types must not be `private`: Swift 6.3.1 crashes in debug builds when another file destroys their buffer.
@safe
struct OwnedBuffer<Element: BitwiseCopyable>: ~Copyable {
    private var base: UnsafeMutablePointer<Element>
    private(set) var count: Int

    init() {
        unsafe self.base = .allocate(capacity: 0)
        self.count = 0
    }

    init(repeating element: Element, count: Int) {
        unsafe self.base = .allocate(capacity: count)
        unsafe self.base.initialize(repeating: element, count: count)
        self.count = count
    }

    deinit {
        unsafe self.base.deallocate()
    }

    subscript(index: Int) -> Element {
        @inline(__always) get {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: self.count), "index out of bounds")
            return unsafe self.base[index]
        }
        @inline(__always) _modify {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: self.count), "index out of bounds")
            yield unsafe &self.base[index]
        }
    }

    /// Moves the elements to memory for `count` elements: drops the last ones or adds copies of `element`.
    mutating func resize(to count: Int, filling element: Element) {
        let new = UnsafeMutablePointer<Element>.allocate(capacity: count)
        let kept = min(count, self.count)
        unsafe new.initialize(from: self.base, count: kept)
        unsafe (new + kept).initialize(repeating: element, count: count - kept)
        unsafe self.base.deallocate()
        unsafe self.base = new
        self.count = count
    }
}

/// `@unchecked`: only the buffer accesses its memory, and it can't be copied, so it moves from one thread to another
/// whole or not at all.
extension OwnedBuffer: @unchecked Sendable where Element: Sendable {}
