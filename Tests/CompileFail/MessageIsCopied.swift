// expect: 'message' is borrowed and cannot be consumed
// SPDX-License-Identifier: Apache-2.0

import DroverZMQ

func box(_ message: borrowing Message) -> MessageBox {
    MessageBox(message)
}
