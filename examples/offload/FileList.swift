// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The regular files below a folder; symbolic links are not followed.
struct FileList {
    private(set) var paths: [String] = []
    /// Folders that can't be read and names that aren't UTF-8: left out, and said so at the end.
    private(set) var skipped: [String] = []

    init(below folder: String) throws {
        var status = stat()
        guard stat(folder, &status) == 0 else { throw FileError(errno: errno, folder) }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw Failure("\(folder) is not a folder") }
        self.visit(folder)
        self.paths.sort()
    }

    private mutating func visit(_ folder: String) {
        guard let stream = opendir(folder) else {
            self.skipped.append("\(FileError(errno: errno, folder))")
            return
        }
        defer { closedir(stream) }
        var folders: [String] = []
        while let entry = readdir(stream) {
            let length = Int(
                strlen(UnsafeRawPointer(entry).advanced(by: Self.nameOffset).assumingMemoryBound(to: CChar.self))
            )
            let bytes = UnsafeRawBufferPointer(
                start: UnsafeRawPointer(entry).advanced(by: Self.nameOffset),
                count: length
            )
            guard let name = String(validating: bytes, as: UTF8.self) else {
                self.skipped.append("\(folder)/\(String(decoding: bytes, as: UTF8.self)): its name is not UTF-8")
                continue
            }
            guard name != ".", name != ".." else { continue }
            let path = folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0 else {
                self.skipped.append("\(FileError(errno: errno, path))")
                continue
            }
            switch status.st_mode & S_IFMT {
            case S_IFREG: self.paths.append(path)
            case S_IFDIR: folders.append(path)
            default: break
            }
        }
        for folder in folders { self.visit(folder) }
    }

    /// Where the name stands in an entry; the entry itself may be shorter than its declaration, so it is never copied.
    private static let nameOffset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 19
}
