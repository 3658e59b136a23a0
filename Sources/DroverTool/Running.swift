// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

/// Lets a verb that runs until it is told to stop outlive who reads what it prints and logs.
///
/// Other verbs end with their reader, as a pipe into `head` expects. Processes that are started afterwards inherit this.
func outliveReaders() {
    signal(SIGPIPE, SIG_IGN)
    // A stream that was closed would leave its number to a socket, which then got what is printed.
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
        _ = open("/dev/null", O_RDWR)
    }
}

/// The longest time that an option may give: 31 years.
private let mostSeconds = 1e9

/// Refuses what isn't a number of seconds that clocks can hold.
func checkSeconds(_ seconds: Double, _ option: String) throws {
    guard seconds.isFinite, seconds <= mostSeconds else {
        throw ValidationError("\(option) is \(seconds); it must be a number of seconds, at most \(Int(mostSeconds))")
    }
}
