// SPDX-License-Identifier: Apache-2.0

internal import DroverCore
internal import DroverRuntime
internal import DroverWire

/// Why no peer would take these names or values of queues, labels or resources; nil if all do.
///
/// It is said where they are set: a broker that can't read a worker's offer can only refuse it again and again.
func termProblem(_ what: String, _ terms: some Collection<String>) -> String? {
    let (most, longest) = (WireLimits.maxTerms, WireLimits.maxTermBytes)
    if terms.count > most { return "\(what) are \(terms.count); \(most) is the limit" }
    guard let long = terms.first(where: { $0.utf8.count > longest }) else { return nil }
    return "\(what): \"\(PeerText.legible(long, maxBytes: 40))\" has \(long.utf8.count) bytes; \(longest) is the limit"
}
