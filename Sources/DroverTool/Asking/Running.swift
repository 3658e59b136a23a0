// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

/// Lets a verb that runs until it is told to stop outlive the reader of its output and logs.
///
/// Other verbs end with their reader, as a pipe into `head` expects. Processes started later inherit this.
func outliveReaders() {
    signal(SIGPIPE, SIG_IGN)
    // A socket could get the number of a stream that was closed, and would then receive what is printed.
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
        _ = open("/dev/null", O_RDWR)
    }
}

/// The longest time that an option may specify: 31 years.
private let mostSeconds = 1e9

/// Refuses what isn't a number of seconds that clocks can hold.
func checkSeconds(_ seconds: Double, _ option: String) throws {
    guard seconds.isFinite, seconds <= mostSeconds else {
        throw ValidationError("\(option) is \(seconds); it must be a number of seconds, at most \(Int(mostSeconds))")
    }
}
