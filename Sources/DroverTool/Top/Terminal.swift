// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A full-screen view on a terminal, and its user's input.
final class Terminal {
    enum Event: Sendable {
        case key(UInt8)
        /// The window has a new size, or the program is in the foreground again.
        case redraw
        /// The user or another process wants the program to end.
        case quit
    }

    /// The events, until the program is to end.
    let events: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation
    private let usual: termios
    private let sources: [any DispatchSourceProtocol]

    /// Takes over the terminal: an alternate screen, with keys read one at a time.
    ///
    /// - Returns: Nil unless standard input and output are a terminal.
    init?() {
        var usual = termios()
        guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1, tcgetattr(STDIN_FILENO, &usual) == 0,
            ProcessInfo.processInfo.environment["TERM"] != "dumb"
        else { return nil }
        self.usual = usual
        (self.events, self.continuation) = AsyncStream.makeStream()
        let keys = DispatchSource.makeReadSource(fileDescriptor: STDIN_FILENO)
        keys.setEventHandler { [continuation = self.continuation] in
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = read(STDIN_FILENO, &bytes, bytes.count)
            guard count > 0 else { return _ = continuation.yield(.quit) }
            // An escape sequence, such as an arrow key's, isn't one of our keys.
            if bytes[0] != 0x1B || count == 1 { for byte in bytes.prefix(count) { continuation.yield(.key(byte)) } }
        }
        var sources: [any DispatchSourceProtocol] = [keys]
        for (number, event) in [(SIGWINCH, Event.redraw), (SIGINT, .quit), (SIGTERM, .quit), (SIGHUP, .quit)] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { [continuation = self.continuation] in continuation.yield(event) }
            sources.append(source)
        }
        signal(SIGTSTP, SIG_IGN)
        let stop = DispatchSource.makeSignalSource(signal: SIGTSTP)
        sources.append(stop)
        self.sources = sources
        stop.setEventHandler { [usual, continuation = self.continuation] in
            Self.leave(usual)
            // The process stops here until it is continued.
            kill(getpid(), SIGSTOP)
            Self.enter(usual)
            continuation.yield(.redraw)
        }
        for source in sources { source.resume() }
        Self.enter(usual)
    }

    /// Restores the terminal.
    func close() {
        for source in self.sources { source.cancel() }
        self.continuation.finish()
        Self.leave(self.usual)
    }

    /// The window's columns and rows.
    var size: (width: Int, height: Int) {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
            return (80, 24)
        }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Replaces what is shown, in a single write so that nothing flickers.
    func show(_ lines: [String]) {
        var text = "\u{1B}[H"
        for (number, line) in lines.enumerated() {
            let isHeading = number == 0 || line.hasPrefix("WORKER") || line.hasPrefix("FUNCTION")
            text += isHeading ? "\u{1B}[1m\(line)\u{1B}[0m\u{1B}[K" : "\(line)\u{1B}[K"
            if number < lines.count - 1 { text += "\r\n" }
        }
        Self.write(text + "\u{1B}[J")
    }

    private static func enter(_ usual: termios) {
        var raw = usual
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
        tcsetattr(STDIN_FILENO, TCSANOW, &raw)
        // The alternate screen, without a cursor.
        Self.write("\u{1B}[?1049h\u{1B}[?25l\u{1B}[2J")
    }

    private static func leave(_ usual: termios) {
        var usual = usual
        Self.write("\u{1B}[?25h\u{1B}[?1049l")
        tcsetattr(STDIN_FILENO, TCSADRAIN, &usual)
    }

    private static func write(_ text: String) {
        // If the terminal is gone, reading its keys shows it.
        try? FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    }
}
