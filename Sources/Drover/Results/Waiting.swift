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
    /// A batch, and the call's mark there; see ``BatchMark``.
    case batch(BatchInbox, BatchMark)
    /// A task that was cancelled before it registered.
    case tombstone(UInt64)

    enum Key: Sendable {
        case thread(Parker)
        case task(UInt64)
        case callback(CallbackToken)
        case batch(BatchInbox, BatchMark)
        case tombstone(UInt64)
    }

    func matches(_ key: Key) -> Bool {
        switch (self, key) {
        case (.thread(let one), .thread(let other)): one === other
        case (.task(let one, _), .task(let other)): one == other
        case (.callback(let one), .callback(let other)): one === other
        case (.batch(let one, let mark), .batch(let other, let otherMark)): one === other && mark == otherMark
        case (.tombstone(let one), .tombstone(let other)): one == other
        default: false
        }
    }
}

/// Who waits for a call's end, in the order they came.
///
/// Most calls have one waiter, which needs no array.
struct Waiting: Sendable {
    private enum Content: Sendable {
        case none
        case one(Waiter)
        case many([Waiter])
    }

    private var content = Content.none

    var isEmpty: Bool {
        if case .none = self.content { true } else { false }
    }

    mutating func append(_ waiter: Waiter) {
        switch self.content {
        case .none: self.content = .one(waiter)
        case .one(let first): self.content = .many([first, waiter])
        case .many(var waiters):
            self.content = .none
            waiters.append(waiter)
            self.content = .many(waiters)
        }
    }

    mutating func remove(_ key: Waiter.Key) -> Waiter? {
        switch self.content {
        case .none: return nil
        case .one(let waiter):
            guard waiter.matches(key) else { return nil }
            self.content = .none
            return waiter
        case .many(var waiters):
            guard let index = waiters.firstIndex(where: { $0.matches(key) }) else { return nil }
            self.content = .none
            let waiter = waiters.remove(at: index)
            self.content = waiters.isEmpty ? .none : .many(waiters)
            return waiter
        }
    }

    /// Takes the threads, tasks and batches out and leaves the callbacks.
    mutating func takeReaders() -> Waiting {
        var readers = Waiting()
        var others = Waiting()
        self.forEach { waiter in
            switch waiter {
            case .thread, .task, .batch: readers.append(waiter)
            case .callback, .tombstone: others.append(waiter)
            }
        }
        self = others
        return readers
    }

    func forEach(_ body: (Waiter) -> Void) {
        switch self.content {
        case .none: break
        case .one(let waiter): body(waiter)
        case .many(let waiters): for waiter in waiters { body(waiter) }
        }
    }

    /// Wakes threads and tasks, and hands callbacks to the callback executor.
    func wake(for result: AnyAsyncResult) {
        self.forEach { waiter in
            switch waiter {
            case .thread(let parker): parker.unpark()
            case .task(_, let continuation): continuation.resume(returning: .ended)
            case .batch(let inbox, let mark): inbox.ended(mark, as: result.currentStatus, itemCount: result.itemCount)
            case .callback(let token): result.client.callbacks.enqueue(result, token)
            case .tombstone: break
            }
        }
    }
}
