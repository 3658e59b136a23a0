// SPDX-License-Identifier: Apache-2.0

/// The tenant that a session belongs to, and how much that tenant may use.
package struct TenantClaim: Equatable, Sendable {
    package var name: String
    package var quotas: Quotas

    package init(name: String, quotas: Quotas = Quotas()) {
        self.name = name
        self.quotas = quotas
    }
}
