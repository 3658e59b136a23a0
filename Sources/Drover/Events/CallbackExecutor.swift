// SPDX-License-Identifier: Apache-2.0

/// Runs a client's callbacks and events: result callbacks, events, `onDisconnect` and the other hooks.
///
/// A client has a thread of its own for them unless one is given. An executor must run what it is given one after the
/// other, in order: the order of callbacks rests on it. It should not be one that the client's callers block.
public protocol CallbackExecutor: Sendable {
    /// Runs `work` soon, after all that was given before.
    ///
    /// - Parameter work: Delivers a bounded number of callbacks and returns.
    func run(_ work: @escaping @Sendable () -> Void)
}
