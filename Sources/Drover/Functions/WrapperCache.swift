// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What makes two wrappers of one client the same.
struct WrapperKey: Hashable, Sendable {
    let type: ObjectIdentifier
    let name: String
    let options: CallOptions
}

/// Keeps each wrapper as long as it is referenced elsewhere, and no longer (contract S6).
final class WrapperCache: Sendable {
    private struct Entry: Sendable { weak var wrapper: (any AnyObject & Sendable)? }

    private let entries = Mutex<[WrapperKey: Entry]>([:])

    /// How many wrappers are held.
    var count: Int { self.entries.withLock { $0.count } }

    /// The wrapper for the key if one is still referenced, or a new one.
    func wrapper<Wrapper: AnyObject & Sendable>(for key: WrapperKey, make: () -> Wrapper) -> Wrapper {
        self.entries.withLock { entries in
            // A weak reference is nil from the moment the last holder lets go, before the wrapper's deinit runs.
            if let wrapper = entries[key]?.wrapper as? Wrapper { return wrapper }
            let wrapper = make()
            entries[key] = Entry(wrapper: wrapper)
            return wrapper
        }
    }

    /// A wrapper is gone.
    ///
    /// Its place may have been taken by a newer one, which stays.
    func released(_ key: WrapperKey) {
        self.entries.withLock { entries in
            if let entry = entries[key], entry.wrapper == nil { entries[key] = nil }
        }
    }
}
