// SPDX-License-Identifier: Apache-2.0

internal import DroverCodec

/// Where a handler runs.
public struct Isolation: Hashable, Sendable {
    let isProcess: Bool

    /// In the worker's process, as handlers usually do.
    public static let worker = Isolation(isProcess: false)
    /// In a child process of the worker: a handler that crashes, exits or takes all memory ends its own call and no other.
    ///
    /// The child runs the worker's program from its start, up to where the worker is started; see ``Worker/isChild``.
    public static let process = Isolation(isProcess: true)
}

/// A handler that runs in a child process, with its types erased.
final class IsolatedFunction: Sendable {
    typealias AsyncBody = @Sendable (inout PackReader) throws -> AsyncWork

    enum Body: Sendable {
        case sync(Handler.SyncBody)
        case async(AsyncBody)
    }

    let name: String
    let isIdempotent: Bool
    /// Why it can't run in a process of its own.
    let refusal: String?
    let body: Body

    init(name: String, isIdempotent: Bool, refusal: String?, body: Body) {
        self.name = name
        self.isIdempotent = isIdempotent
        self.refusal = refusal
        self.body = body
    }

    /// What the worker runs in its place.
    @available(*, noasync)
    func runInChild(_ reader: inout PackReader, _ context: JobContext, _ writer: inout PackWriter) throws {
        guard let pool = context.core.isolation else {
            throw IsolationError(body: ErrorBody(code: .internal, message: "the worker has no child processes"))
        }
        try unsafe reader.takeRest { arguments in
            try unsafe IsolatedRun(context: context, function: self).run(in: pool, arguments, &writer)
        }
    }
}

/// What the caller of an isolated handler is told, ready to travel.
struct IsolationError: Error {
    let body: ErrorBody
}

extension Callback: CallbackReference {}

/// A callback of any type.
protocol CallbackReference {}

/// Whether one of the types is that of a callback, which reaches its client from the worker's process only.
func hasCallback<each Argument>(_ type: repeat (each Argument).Type) -> Bool {
    for type in repeat each type {
        if type is any CallbackReference.Type { return true }
    }
    return false
}
