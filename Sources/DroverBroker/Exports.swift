// SPDX-License-Identifier: Apache-2.0

// Endpoints, keys and errors are part of this module's interface.
@_exported public import DroverRuntime
