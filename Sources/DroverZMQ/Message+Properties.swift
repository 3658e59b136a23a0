// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// What libzmq knows about the connection a message arrived over, such as `User-Id` (set by ZAP) and `Peer-Address`.
///
/// The route that a ROUTER puts in front has no properties; the frames after it do.
extension Message {
    /// A property; nil if the connection doesn't have it.
    package func property(_ name: StaticString) -> String? {
        unsafe withUnsafePointer(to: self.raw) { raw in
            guard let text = unsafe zmq_msg_gets(raw, Self.characters(of: name)) else { return nil }
            return unsafe String(cString: text)
        }
    }

    /// Whether a property has this zero-terminated value; nothing is copied.
    package func hasProperty(_ name: StaticString, _ value: [CChar]) -> Bool {
        unsafe withUnsafePointer(to: self.raw) { raw in
            guard let text = unsafe zmq_msg_gets(raw, Self.characters(of: name)) else { return false }
            return unsafe value.withUnsafeBufferPointer { value in
                guard let start = value.baseAddress else { return false }
                return unsafe strcmp(text, start) == 0
            }
        }
    }

    /// The descriptor of the connection; -1 if it has none, as within a process.
    ///
    /// As soon as this connection is closed, another may get the same descriptor.
    package var sourceDescriptor: CInt {
        unsafe withUnsafePointer(to: self.raw) { unsafe zmq_msg_get($0, ZMQ_SRCFD) }
    }

    private static func characters(of name: StaticString) -> UnsafePointer<CChar> {
        unsafe UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
