// expect: instance method 'park' is unavailable from asynchronous contexts
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func wait(for parker: Parker) async {
    _ = parker.park()
}
