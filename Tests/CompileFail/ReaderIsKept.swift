// expect: type 'PackReader' does not conform to protocol 'Copyable'
// SPDX-License-Identifier: Apache-2.0

import DroverCodec

/// A type that keeps its reader would read bytes that are gone.
struct Keeper {
    var kept: [PackReader] = []
}
