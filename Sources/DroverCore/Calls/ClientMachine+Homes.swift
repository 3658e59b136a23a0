// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

// Where the calls of ordering keys go. That follows from the number of open endpoints, so that nothing needs to be
// stored for each key. But when that number changes, a key must not move while its endpoint has calls of it: two would
// run at once.

extension ClientMachine {
    /// An endpoint comes or goes: keys with calls at an endpoint stay there until those have ended (contract S9).
    mutating func keepHomes() {
        guard self.endpoints.count > 1 else { return }
        self.trimHomes()
        var homes = self.homes
        for index in self.endpoints.indices where !self.endpoints[index].isDraining {
            for affinity in self.endpoints[index].keyed.keys where homes[affinity] == nil { homes[affinity] = index }
            for id in self.endpoints[index].bound {
                guard let slot = self.calls.slot(of: id), homes[self.calls[slot].affinity] == nil else { continue }
                homes[self.calls[slot].affinity] = index
            }
        }
        self.homes = homes
    }

    /// Forgets keys whose calls have ended.
    mutating func trimHomes() {
        guard !self.homes.isEmpty else { return }
        self.homes = self.homes.filter { self.formerHome(of: $0.key) == $0.value }
    }

    /// The endpoint that had calls of a key when another came or went, as long as it is available and still has some.
    func formerHome(of affinity: UInt64) -> Int? {
        guard !self.homes.isEmpty, let index = self.homes[affinity], !self.endpoints[index].isDraining else {
            return nil
        }
        // An endpoint whose connection is interrupted still has them, unless it is lost.
        if self.endpoints[index].keyed.hasCalls(of: affinity) { return index }
        return self.endpoints[index].isOpen && !self.endpoints[index].bound.isEmpty ? index : nil
    }
}
