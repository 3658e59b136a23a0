// expect: initializer 'init' is unavailable from asynchronous contexts
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func make(in context: Context) async throws {
    _ = try Socket(.dealer, in: context)
}
