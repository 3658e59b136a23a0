// SPDX-License-Identifier: Apache-2.0

internal import DroverZMQ
internal import Glibc

/// Reads and writes the small files that security rests on.
package enum SecurityFile {
    /// What tells one state of a file from another.
    package struct Stamp: Hashable, Sendable {
        let device: UInt
        let inode: UInt
        let size: Int
        /// The times of the last changes, as the system keeps them.
        let times: [UInt8]
    }

    /// How a file is now; nil if there is none.
    package static func stamp(of path: String) -> Stamp? {
        var info = Glibc.stat()
        guard unsafe stat(path, &info) == 0 else { return nil }
        return Stamp(
            device: UInt(info.st_dev),
            inode: UInt(info.st_ino),
            size: Int(info.st_size),
            times: unsafe withUnsafeBytes(of: info.st_mtim) { unsafe Array($0) }
                + withUnsafeBytes(of: info.st_ctim) { unsafe Array($0) }
        )
    }

    /// Reads a file whole.
    ///
    /// - Parameters:
    ///   - path: Where it is.
    ///   - limit: How long it may be.
    ///   - forbiddenMode: Permissions that the file must not have; a group may read what belongs to root.
    ///   - remedy: What to do if it has.
    ///   - isOwnerTrusted: Whether it may belong to anybody. If not, it must belong to this user or to root: its owner can
    ///     change it, whatever its permissions say.
    /// - Returns: The text.
    /// - Throws: ``UsageError`` that names the file.
    package static func read(
        _ path: String,
        limit: Int,
        forbiddenMode: UInt32,
        remedy: String,
        isOwnerTrusted: Bool = true
    ) throws -> String {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw Self.failure("can't read \(path)") }
        defer { close(descriptor) }
        var info = Glibc.stat()
        guard unsafe fstat(descriptor, &info) == 0 else { throw Self.failure("can't read \(path)") }
        guard info.st_mode & UInt32(S_IFMT) == UInt32(S_IFREG) else {
            throw UsageError(.badConfiguration, "\(path) is no file")
        }
        let mode = info.st_mode & 0o777
        // What root shows to a group is shown on purpose, as secrets are that an orchestrator mounts. Root itself needs no
        // group to read.
        let isRootsForGroup = info.st_uid == 0 && geteuid() != 0
        guard mode & forbiddenMode & (isRootsForGroup ? ~0o040 : ~0) == 0 else {
            throw UsageError(.badConfiguration, "\(path) has the mode 0\(String(mode, radix: 8)): \(remedy)")
        }
        guard isOwnerTrusted || info.st_uid == 0 || info.st_uid == geteuid() else {
            throw UsageError(
                .badConfiguration,
                "\(path) belongs to user \(info.st_uid), who may change it: run chown \(geteuid()) \(path)"
            )
        }
        guard info.st_size <= limit else {
            throw UsageError(.badConfiguration, "\(path) has \(info.st_size) bytes; at most \(limit) are read")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= limit {
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw Self.failure("can't read \(path)") }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Changes a file, one process after the other: no change is lost to another that was made at the same time.
    ///
    /// The file is locked while it is read, changed and replaced, and the new file until it has been read back. An editor
    /// takes no lock: if the file changed meanwhile, it is read again.
    ///
    /// - Parameters:
    ///   - path: Where it is; it is made if it isn't there.
    ///   - read: Reads it.
    ///   - change: Makes the new text out of the present one, "" if there is no file. May be called several times.
    /// - Throws: ``UsageError`` that names the file, or what `read` or `change` throws; the file is unchanged then.
    package static func update(
        _ path: String,
        read: (String) throws -> String,
        change: (String) throws -> String
    ) throws {
        let isNew = Self.stamp(of: path) == nil
        let lock = try Self.lock(path)
        defer { close(lock) }
        for _ in 0..<Self.maxUpdates {
            let before = Self.stamp(of: path)
            let text: String
            do { text = try change(try read(path)) } catch {
                // The lock had to make the file; nothing was said that should stand in it.
                if isNew, before?.size == 0 { unsafe unlink(path) }
                throw error
            }
            guard Self.stamp(of: path) == before else { continue }
            // The lock of the file that was there says nothing of the new one.
            let placed = try Self.place(text, at: path, mode: nil, replaces: true, locks: true)
            defer { close(placed) }
            guard try read(path) == text else {
                throw UsageError(
                    .badConfiguration,
                    "another program has overwritten \(path); look at what it says now"
                )
            }
            return
        }
        throw UsageError(
            .badConfiguration,
            "\(path) changes all the time; close the program that writes it and try again"
        )
    }

    /// How often a file that something else writes meanwhile is changed anew.
    private static let maxUpdates = 16
    /// How long another process may hold a file.
    private static let lockSeconds = 60

    /// Opens a file and holds its lock until the descriptor is closed.
    private static func lock(_ path: String) throws -> CInt {
        // Of a thread that may wait: this is a command's, not a loop's.
        let end = MonotonicClock.now() + UInt64(Self.lockSeconds) * 1_000_000_000
        while true {
            let descriptor = unsafe open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, mode_t(0o644))
            guard descriptor >= 0 else { throw Self.failure("can't change \(path)") }
            var isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
            if isLocked {
                // The one who had it has put another file in its place: that one is what counts.
                var (mine, present) = (Glibc.stat(), Glibc.stat())
                isLocked =
                    unsafe fstat(descriptor, &mine) == 0 && stat(path, &present) == 0 && mine.st_ino == present.st_ino
                    && mine.st_dev == present.st_dev
                if isLocked { return descriptor }
            } else if errno != EWOULDBLOCK && errno != EINTR {
                let problem = Self.failure("can't lock \(path)")
                close(descriptor)
                throw problem
            }
            close(descriptor)
            guard MonotonicClock.now() < end else {
                throw UsageError(
                    .badConfiguration,
                    "another process has held \(path) for \(Self.lockSeconds) s; `fuser \(path)` names it"
                )
            }
            usleep(2_000)
        }
    }

    /// Writes a file whole: its readers see the old one or the new one.
    ///
    /// - Parameters:
    ///   - text: What it shall hold.
    ///   - path: Where it is.
    ///   - mode: Its permissions; nil keeps those that it has.
    ///   - replaces: Whether a file may be there.
    /// - Throws: ``UsageError`` that names the file.
    package static func write(_ text: String, to path: String, mode: UInt32?, replaces: Bool) throws {
        close(try Self.place(text, at: path, mode: mode, replaces: replaces, locks: false))
    }

    /// Writes a file whole; `locks` locks it before others can see it.
    ///
    /// - Returns: Its descriptor; the lock lasts until that is closed.
    private static func place(
        _ text: String,
        at path: String,
        mode: UInt32?,
        replaces: Bool,
        locks: Bool
    ) throws -> CInt {
        var info = Glibc.stat()
        let exists = unsafe stat(path, &info) == 0
        guard replaces || !exists else {
            throw UsageError(.badConfiguration, "\(path) is there already; choose another name, or remove it first")
        }
        let mode = mode ?? (exists ? info.st_mode & 0o777 : 0o644)
        // Beside the file, so that the rename stays within its file system.
        let draft = "\(path).\(getpid()).new"
        // Of a process that died as it wrote; in containers all have the same number.
        unsafe unlink(draft)
        let descriptor = unsafe open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode_t(mode))
        guard descriptor >= 0 else { throw Self.failure("can't write \(path)") }
        let isWritten =
            Self.put(Array(text.utf8), to: descriptor) && fchmod(descriptor, mode) == 0
            && fsync(descriptor) == 0 && (!locks || flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        if !isWritten {
            let problem = Self.failure("can't write \(path)")
            close(descriptor)
            unsafe unlink(draft)
            throw problem
        }
        // A link fails if the name has been taken meanwhile, which a rename would not.
        let isPlaced = unsafe replaces ? rename(draft, path) == 0 : link(draft, path) == 0
        let placing = isPlaced ? nil : Self.failure("can't write \(path)")
        if !replaces || !isPlaced { unsafe unlink(draft) }
        if let placing {
            close(descriptor)
            throw placing
        }
        return descriptor
    }

    private static func put(_ bytes: [UInt8], to descriptor: CInt) -> Bool {
        var start = 0
        while start < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.write(descriptor, $0.baseAddress.map { unsafe $0 + start }, bytes.count - start)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            start += count
        }
        return true
    }

    private static func failure(_ what: String) -> UsageError {
        let reason = unsafe String(cString: strerror(errno))
        return UsageError(.badConfiguration, "\(what): \(reason)")
    }
}
