// expect: missing reinitialization of inout parameter 'reader'
// SPDX-License-Identifier: Apache-2.0

import DroverCodec

/// What a type's `unpack` is given can't be saved for later.
func save(_ reader: inout PackReader) -> () -> Int {
    let saved = reader
    return { saved.remaining }
}
