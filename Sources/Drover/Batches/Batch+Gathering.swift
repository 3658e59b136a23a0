// SPDX-License-Identifier: Apache-2.0

internal import DroverRuntime

extension Batch {
    /// Runs the batch and gathers its values, in the order of the inputs.
    ///
    /// - Returns: A value for each input.
    /// - Throws: As iterating does.
    @inlinable
    public func collect() async throws -> [Output] {
        var gathered = Gathering<Output>()
        let run = try Pairs(run: self.begin()).running
        while true {
            if let item = try run.nextAtOnce() {
                try gathered.add(item, stops: run.stopsOnFailure)
            } else if let item = try await run.next() {
                try gathered.add(item, stops: run.stopsOnFailure)
            } else {
                break
            }
        }
        return try gathered.values
    }

    /// Runs the batch and gathers its values in the order of the inputs, blocking this thread meanwhile.
    ///
    /// - Returns: A value for each input.
    /// - Throws: As iterating does, and `UsageError` on a thread that can't wait.
    @available(*, noasync, message: "await collect() instead")
    @inlinable
    public func collectBlocking() throws -> [Output] {
        var gathered = Gathering<Output>()
        let run = try Pairs(run: self.begin()).running
        while let item = try run.nextBlocking() { try gathered.add(item, stops: run.stopsOnFailure) }
        return try gathered.values
    }

    /// Runs the batch on this thread, which waits for results meanwhile.
    ///
    /// - Parameter body: Given each input and its value. If it throws, the rest is cancelled.
    /// - Throws: As iterating does; what `body` throws; `UsageError` on a thread that can't wait.
    @available(*, noasync, message: "iterate the batch with `for try await` instead")
    @inlinable
    public func forEachBlocking(_ body: (Input, Output) throws -> Void) throws {
        var pairs = Pairs(run: self.begin())
        let run = try pairs.running
        while let item = try run.nextBlocking() {
            if let (input, value) = try pairs.pair(of: item) { try body(input, value) }
        }
        _ = try pairs.ended()
    }
}

extension BatchItems {
    /// Runs the batch on this thread, which waits for results meanwhile.
    ///
    /// - Parameter body: Given each item as it ends. If it throws, the rest is cancelled.
    /// - Throws: As iterating does; what `body` throws; `UsageError` on a thread that can't wait.
    @available(*, noasync, message: "iterate the items with `for try await` instead")
    @inlinable
    public func forEachBlocking(_ body: (BatchItem<Input, Output>) throws -> Void) throws {
        guard let run = self.batch.begin() else { throw UsageError.alreadyIterated }
        while let item = try run.nextBlocking() { try body(item) }
    }
}

/// Values on their way into the order of their inputs.
@usableFromInline
struct Gathering<Output: Sendable> {
    @usableFromInline var places: [Output?] = []
    @usableFromInline var failures = BatchError()

    @inlinable init() {}

    @inlinable
    mutating func add<Input>(_ item: BatchItem<Input, Output>, stops: Bool) throws {
        switch item.result {
        case .success(let value):
            while self.places.count <= item.index { self.places.append(nil) }
            self.places[item.index] = value
        case .failure(let error):
            self.failures.add(error, at: item.index)
            if stops { throw self.failures }
        }
    }

    /// All values; there is one for each input unless items failed.
    @inlinable var values: [Output] {
        get throws {
            if self.failures.failureCount > 0 { throw self.failures }
            return self.places.compactMap { $0 }
        }
    }
}
