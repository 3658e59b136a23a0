// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import DroverWire

/// Calls that workers hold although slots may be free, and those that are kept here for the same reason.
extension ClientMachine {
    /// A worker said what a call waits for; brokers do their own counting.
    mutating func hold(_ slot: UInt32, _ reason: HoldReason, at endpoint: Int, actions: inout [ClientAction]) {
        let call = self.calls[slot]
        guard call.hold != reason else { return }
        // Only brokers can lack workers.
        let reason = reason == .worker && self.endpoints[endpoint].slots > 0 ? .none : reason
        guard self.endpoints[endpoint].slots > 0 else { return self.calls[slot].hold = reason }
        if call.affinity != 0 {
            self.calls[slot].hold = reason
            return self.endpoints[endpoint].keyed.hold(call.id, reason != .none)
        }
        self.endHold(slot)
        guard reason != .none else { return }
        // A call without a key can be held only for its function's limit.
        self.calls[slot].hold = .limit
        self.endpoints[endpoint].held.add(Int(call.function), .limit)
        guard self.endpoints.count > 1 else { return }
        self.recallHeld(slot, from: endpoint, actions: &actions)
        let next = self.latest.advanced(byNanoseconds: self.configuration.stallNanoseconds)
        self.endpoints[endpoint].stallAt = min(self.endpoints[endpoint].stallAt, next)
    }

    /// A call is no longer held, or no longer at its worker.
    ///
    /// - Parameters:
    ///   - slot: The call.
    ///   - isBack: Whether the worker returned it, as it was asked to: the worker must not get it again at once.
    mutating func endHold(_ slot: UInt32, isBack: Bool = false) {
        let call = self.calls[slot]
        guard call.hold != .none else { return }
        self.calls[slot].hold = .none
        self.forgetHold(of: call, isBack: isBack)
    }

    /// A call that was held has ended, or is about to be changed.
    mutating func forgetHold(of call: Call, isBack: Bool = false) {
        let endpoint = Int(call.endpoint)
        guard endpoint >= 0, self.endpoints[endpoint].slots > 0 else { return }
        guard call.affinity == 0 else { return self.endpoints[endpoint].keyed.hold(call.id, false) }
        let reopensAt = self.latest.advanced(byNanoseconds: self.configuration.stallNanoseconds)
        self.endpoints[endpoint].held.remove(Int(call.function), .limit, reopensAt: isBack ? reopensAt : nil)
        if isBack { self.endpoints[endpoint].stallAt = min(self.endpoints[endpoint].stallAt, reopensAt) }
    }

    /// Recalls held calls that another worker could run now.
    ///
    /// - Returns: When to check again.
    mutating func lookAfterHeld(_ endpoint: Int, at now: Instant, actions: inout [ClientAction]) -> Instant {
        self.endpoints[endpoint].held.reopen(at: now)
        guard self.endpoints.count > 1, self.endpoints[endpoint].held.count > 0 else {
            return self.endpoints[endpoint].held.nextOpening
        }
        // The last goes first: each returned call is queued before the one returned before it.
        let held = self.slots(of: endpoint).filter { self.calls[$0].hold == .limit }
            .sorted { self.calls[$0].id > self.calls[$1].id }
        for slot in held { self.recallHeld(slot, from: endpoint, actions: &actions) }
        return now.advanced(byNanoseconds: self.configuration.stallNanoseconds)
    }

    private mutating func recallHeld(_ slot: UInt32, from endpoint: Int, actions: inout [ClientAction]) {
        let call = self.calls[slot]
        let function = Int(call.function)
        guard call.affinity == 0, !call.isRecalled, !call.isRepeated, self.endpoints[endpoint].isOpen,
            self.endpoints.contains(where: { $0.isFree && !$0.held.isClosed(function) })
        else { return }
        self.calls[slot].isRecalled = true
        actions.append(.sendCancel(endpoint: endpoint, id: call.id, reason: .recalled))
    }

    // MARK: Parked calls

    var parkedCount: Int { self.parked.isEmpty ? 0 : self.parked.values.reduce(0) { $0 + $1.count } }

    /// Whether other calls of a function wait for its limit: a new one then goes behind them.
    func isParked(_ function: UInt32, _ affinity: UInt64) -> Bool {
        !self.parked.isEmpty && affinity == 0 && self.parked[function] != nil
    }

    /// Puts the next call aside if only its function's limit keeps it from being sent: others needn't wait for that.
    ///
    /// - Returns: Whether it was put aside.
    mutating func park(_ call: Call) -> Bool {
        guard call.affinity == 0 else { return false }
        let function = Int(call.function)
        guard
            self.isParked(call.function, call.affinity)
                || self.endpoints.contains(where: { $0.isFree && $0.held.isClosed(function) })
        else { return false }
        self.append(parked: call)
        return true
    }

    mutating func append(parked call: Call) {
        let count = self.parked[call.function, default: []].count
        if self.isMostlyEnded(count), let ids = self.parked[call.function] {
            self.parked[call.function] = Deque(self.open(ids))
        }
        self.parked[call.function, default: []].append(call.id)
    }

    /// Sends calls that were put aside and whose functions may run again; they were made before those that wait.
    mutating func sendParked(actions: inout [ClientAction]) {
        for function in self.parked.keys.sorted() {
            while let id = self.parked[function]?.first {
                guard let slot = self.calls.slot(of: id), self.calls[slot].endpoint == Call.noEndpoint else {
                    _ = self.parked[function]?.popFirst()
                    continue
                }
                guard let index = self.choose(affinity: 0, function: function) else { break }
                _ = self.parked[function]?.popFirst()
                self.send(waiting: id, to: index, actions: &actions)
            }
            if self.parked[function]?.isEmpty == true { self.parked[function] = nil }
        }
    }

    /// A worker is lost, and with it the limits that its calls imposed on others: all wait in the order they were made.
    mutating func unpark() {
        guard !self.parked.isEmpty else { return }
        let ids = self.open(self.parked.values.joined()).sorted()
        self.parked = [:]
        self.waiting.insert(contentsOf: ids, at: 0)
    }
}
