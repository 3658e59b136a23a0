// SPDX-License-Identifier: Apache-2.0

package import DroverWire

/// What a call waits for at its worker, if that is not a slot.
package enum HoldReason: UInt8, BitwiseCopyable, Sendable {
    case none = 0
    /// Its function's limit: as many of its calls run as may.
    case limit = 1
    /// Another call of its ordering key.
    case key = 2
    /// A worker that may run it; its broker has none.
    case worker = 3

    /// Reads the reason from an ACCEPTED or a STARTED.
    @inlinable
    package init(_ header: Header) {
        guard header.rawKind == MessageKind.accepted.rawValue else {
            self = .none
            return
        }
        if header.number & PhaseReport.unserved != 0 {
            self = .worker
            return
        }
        let isKeyed = header.number & PhaseReport.keyed != 0
        self = isKeyed ? .key : header.number & PhaseReport.limited != 0 ? .limit : .none
    }

    /// The reason as an ACCEPTED carries it.
    package var report: UInt32 {
        switch self {
        case .none: 0
        case .limit: PhaseReport.limited
        case .key: PhaseReport.keyed
        case .worker: PhaseReport.unserved
        }
    }
}

/// The calls that a worker holds although a slot may be free: they don't count as load.
///
/// A function whose calls the worker holds for the limit gets no more calls there, so that a long queue of such calls
/// stays where any worker can take them, and needs no limit of its own.
struct HeldCalls: Sendable {
    private struct Gate: Sendable {
        var held = 0
        /// When the gate opens by itself, if no calls are held.
        var closedUntil = Instant(nanoseconds: 0)
    }

    /// How many calls are held.
    private(set) var count = 0
    private var gates: [Int: Gate] = [:]
    /// When the first gate that holds no calls opens by itself.
    private(set) var nextOpening = Instant.distantFuture

    /// How many functions get no more calls.
    var closedCount: Int { self.gates.count }

    /// Whether no more calls of a function may be sent.
    func isClosed(_ function: Int) -> Bool { !self.gates.isEmpty && self.gates[function] != nil }

    mutating func add(_ function: Int, _ reason: HoldReason) {
        self.count += 1
        if reason == .limit { self.gates[function, default: Gate()].held += 1 }
    }

    /// A call is no longer held.
    ///
    /// - Parameters:
    ///   - function: Its function.
    ///   - reason: Why it was held.
    ///   - reopensAt: For a call that was recalled and came back: when the next may be sent, unless one of the function
    ///     ends before.
    mutating func remove(_ function: Int, _ reason: HoldReason, reopensAt: Instant? = nil) {
        self.count -= 1
        guard reason == .limit, var gate = self.gates[function] else { return }
        gate.held -= 1
        if let reopensAt { gate.closedUntil = max(gate.closedUntil, reopensAt) }
        guard gate.held <= 0, reopensAt == nil else {
            self.gates[function] = gate
            if gate.held <= 0 { self.nextOpening = min(self.nextOpening, gate.closedUntil) }
            return
        }
        self.gates[function] = nil
    }

    /// A call of the function ended at the worker: another may run.
    mutating func ended(_ function: Int) {
        guard !self.gates.isEmpty, let gate = self.gates[function], gate.held <= 0 else { return }
        self.gates[function] = nil
    }

    /// Opens the gates whose time has come.
    mutating func reopen(at now: Instant) {
        guard self.nextOpening <= now else { return }
        self.gates = self.gates.filter { $0.value.held > 0 || $0.value.closedUntil > now }
        self.nextOpening = self.gates.values.reduce(.distantFuture) { next, gate in
            gate.held > 0 ? next : min(next, gate.closedUntil)
        }
    }
}
