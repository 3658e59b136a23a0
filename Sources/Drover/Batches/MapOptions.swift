// SPDX-License-Identifier: Apache-2.0

/// How a batch is run; see `Client.map`.
public struct MapOptions: Hashable, Sendable {
    /// The order of results.
    public enum Order: Hashable, Sendable {
        /// Each as soon as it is there.
        case asCompleted
        /// In the order of the inputs: a slow item holds up those behind it, and at last the whole window.
        case asGiven
    }

    /// What an item's failure does to the others.
    public enum FailurePolicy: Hashable, Sendable {
        /// The first failure ends the batch: no more items are begun, those under way are cancelled.
        case stop
        /// The others go on.
        case goOn
    }

    /// How items travel.
    ///
    /// The items of a chunk run one after the other on one handler thread, each with its own value or error. A chunk counts as
    /// one call for the worker's and the broker's figures, its deadline is the items', and with its worker all its items are
    /// lost or sent again.
    public enum Chunking: Hashable, Sendable {
        /// Quick items of a sequence share requests, as many as make up half a millisecond of work; others travel alone.
        case automatic
        /// Each item is a request of its own.
        case none
        /// So many items share a request, at most 4096; for measuring, or where the time that items take says little.
        case fixed(Int)
    }

    /// How many items may be under way or wait to be taken by the consumer, both together; at least 1.
    ///
    /// It bounds the memory of a batch, and should be at least twice what the workers run at the same time.
    public var window: Int
    /// The order of results.
    public var order: Order
    /// What an item's failure does to the others.
    public var onFailure: FailurePolicy
    /// How each call is made; nil takes what the function has.
    public var call: CallOptions?
    /// Whether items share requests; those of asynchronous inputs never do, nor those with callbacks among their arguments, nor
    /// those of functions with a time limit or a process of their own.
    public var chunking: Chunking
    /// How many items there are, for ``BatchProgress``; nil takes the number that the input knows of itself, if it does.
    public var expectedTotal: Int?

    /// The window that options have by default.
    public static var standardWindow: Int { 512 }

    /// Creates options.
    ///
    /// - Parameters:
    ///   - window: How many items may be under way or wait to be taken.
    ///   - order: The order of results.
    ///   - onFailure: What an item's failure does to the others.
    ///   - call: How each call is made.
    ///   - chunking: Whether items share requests.
    ///   - expectedTotal: How many items there are.
    public init(
        window: Int = MapOptions.standardWindow,
        order: Order = .asCompleted,
        onFailure: FailurePolicy = .stop,
        call: CallOptions? = nil,
        chunking: Chunking = .automatic,
        expectedTotal: Int? = nil
    ) {
        self.window = window
        self.order = order
        self.onFailure = onFailure
        self.call = call
        self.chunking = chunking
        self.expectedTotal = expectedTotal
    }
}
