// SPDX-License-Identifier: Apache-2.0

import CDroverZMQ
import Glibc

/// A failed operation of libzmq or the kernel.
///
/// Loops decide by ``isUnreachable``, ``isTerminated`` and ``isAddressInUse``; "nothing now" (EAGAIN) is never an
/// error, and interrupted calls are repeated before the error reaches a caller.
package struct ZMQError: Error, Hashable, Sendable {
    /// What was tried.
    package enum Operation: String, Hashable, Sendable {
        case createContext = "create a context"
        case setContextOption = "set the context option"
        case createSocket = "create a socket"
        case bind = "bind"
        case connect = "connect"
        case unbind = "unbind"
        case disconnect = "disconnect"
        case setOption = "set the option"
        case getOption = "get the option"
        case send = "send"
        case receive = "receive"
        case poll = "poll"
        case monitor = "monitor"
        case makeKeys = "make a CURVE key pair"
        case readKey = "read a key"
        case createWaker = "create an eventfd"
        case startThread = "start a thread"
        case startProcess = "start a process"
    }

    /// The error number, the system's or libzmq's.
    package let errno: CInt
    /// What was tried.
    package let operation: Operation
    /// What it was tried on, such as an endpoint or an option; empty when the operation says it all.
    package let subject: String

    package init(errno: CInt, _ operation: Operation, _ subject: String = "") {
        self.errno = errno
        self.operation = operation
        self.subject = subject
    }

    /// The error of the libzmq call made just before; no other call may come in between.
    static func last(_ operation: Operation, _ subject: String = "") -> ZMQError {
        ZMQError(errno: zmq_errno(), operation, subject)
    }

    /// The ROUTER socket has no such peer, or no longer has it.
    package var isUnreachable: Bool { self.errno == EHOSTUNREACH }
    /// The context is shut down: close the socket and leave.
    package var isTerminated: Bool { self.errno == drover_eterm() }
    /// Another socket has bound the endpoint.
    package var isAddressInUse: Bool { self.errno == EADDRINUSE }

    /// Whether retrying is pointless, because of an address, an option or a mechanism that isn't known.
    ///
    /// Anything else may be a passing shortage, above all of descriptors.
    package var isPermanent: Bool {
        switch self.errno {
        case EINVAL, EPROTONOSUPPORT, ENOTSUP, ENAMETOOLONG, drover_enocompatproto(), drover_eterm(): true
        default: false
        }
    }

    /// libzmq's text for the error number.
    package var reason: String { unsafe String(cString: zmq_strerror(self.errno)) }

    /// What to do about it, if that is known.
    package var remedy: String? {
        switch self.errno {
        case EADDRINUSE: "choose another port or path, or stop the process that holds it"
        case EEXIST: "the file there is no socket: choose another path, or remove it"
        case EADDRNOTAVAIL: "bind to an address of this host, or to * for all of them"
        case EACCES: "ports below 1024 and foreign directories need permission: choose another port or path"
        case ENODEV: "no such interface or host name here: bind to an address of this host, or to *"
        case ENAMETOOLONG: "the path of an ipc endpoint has at most 107 bytes: choose a shorter one"
        case ENOENT: self.operation == .bind ? "create the directory of the ipc endpoint first" : nil
        case EMFILE:
            self.operation == .createSocket
                ? "raise the limit of open files (ulimit -n), or have fewer clients in this process"
                : "raise the limit of open files (ulimit -n)"
        case ENFILE: "the whole system is out of file descriptors: raise fs.file-max"
        case EPROTONOSUPPORT: "use tcp://, ipc:// or inproc://"
        case drover_enocompatproto(): "this kind of socket can't use that transport: use tcp://, ipc:// or inproc://"
        case EHOSTUNREACH: "the peer is gone: end its session"
        case EAGAIN:
            self.operation == .startThread || self.operation == .startProcess
                ? "raise the limit of threads and processes (ulimit -u)" : nil
        case ENOTSUP: "this libzmq was built without it: install a libzmq with CURVE"
        case drover_eterm(): "the context is shut down: make a new one"
        case EINVAL: self.remedyForInvalidArgument
        default: nil
        }
    }

    private var remedyForInvalidArgument: String? {
        switch self.operation {
        case .bind, .connect, .unbind, .disconnect:
            "write the endpoint as tcp://HOST:PORT, ipc://PATH or inproc://NAME, and check that the host name exists"
        case .setOption, .setContextOption: "the value is out of the option's range"
        case .getOption: "the option can only be set"
        case .readKey: "a key is 32 bytes, or 40 characters of Z85"
        case .createContext: "install libzmq 4.3.3 or later"
        default: nil
        }
    }
}

extension ZMQError: CustomStringConvertible {
    /// What was tried, why it failed and what to do, in one line.
    package var description: String {
        let subject = self.subject.isEmpty ? "" : " \(self.subject)"
        let remedy = self.remedy.map { "; \($0)" } ?? ""
        return "can't \(self.operation.rawValue)\(subject): \(self.reason)\(remedy)"
    }
}
