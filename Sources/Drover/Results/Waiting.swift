// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ

/// Why a wait is over.
enum WaitResult: Sendable {
    case ended
    case cancelled
}

/// One thread, task or callback that wants to know of a call's end.
enum Waiter: Sendable {
    case thread(Parker)
    case task(UInt64, Resumption<WaitResult>)
    case callback(CallbackToken)
    /// A task that was cancelled before it registered.
    case tombstone(UInt64)

    enum Key {
        case thread(Parker)
        case task(UInt64)
        case callback(CallbackToken)
        case tombstone(UInt64)
    }

    func matches(_ key: Key) -> Bool {
        switch (self, key) {
        case (.thread(let one), .thread(let other)): one === other
        case (.task(let one, _), .task(let other)): one == other
        case (.callback(let one), .callback(let other)): one === other
        case (.tombstone(let one), .tombstone(let other)): one == other
        default: false
        }
    }
}

/// Who waits for a call's end, in the order they came.
///
/// Most calls have one waiter, which needs no array.
struct Waiting: Sendable {
    private var first: Waiter?
    private var rest: [Waiter] = []

    var isEmpty: Bool { self.first == nil }

    mutating func append(_ waiter: Waiter) {
        if self.first == nil {
            self.first = waiter
        } else {
            self.rest.append(waiter)
        }
    }

    mutating func remove(_ key: Waiter.Key) -> Waiter? {
        guard let first = self.first else { return nil }
        if first.matches(key) {
            self.first = self.rest.isEmpty ? nil : self.rest.removeFirst()
            return first
        }
        guard let index = self.rest.firstIndex(where: { $0.matches(key) }) else { return nil }
        return self.rest.remove(at: index)
    }

    /// Takes the threads and tasks out and leaves the callbacks.
    mutating func takeReaders() -> Waiting {
        var readers = Waiting()
        var others = Waiting()
        self.forEach { waiter in
            switch waiter {
            case .thread, .task: readers.append(waiter)
            case .callback, .tombstone: others.append(waiter)
            }
        }
        self = others
        return readers
    }

    func forEach(_ body: (Waiter) -> Void) {
        guard let first else { return }
        body(first)
        for waiter in self.rest { body(waiter) }
    }

    /// Wakes threads and tasks, and hands callbacks to the callback executor.
    func wake(for result: AnyAsyncResult) {
        self.forEach { waiter in
            switch waiter {
            case .thread(let parker): parker.unpark()
            case .task(_, let continuation): continuation.resume(returning: .ended)
            case .callback(let token): result.client.callbacks.enqueue(result, token)
            case .tombstone: break
            }
        }
    }
}
