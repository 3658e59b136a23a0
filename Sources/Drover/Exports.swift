// SPDX-License-Identifier: Apache-2.0

// Declarations, errors, endpoints and keys are part of this module's interface.
@_exported public import DroverRuntime
