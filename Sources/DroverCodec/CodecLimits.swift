// SPDX-License-Identifier: Apache-2.0

/// What the codec refuses to write or to read, so that no input makes it use unbounded memory or stack.
public struct CodecLimits: Hashable, Sendable {
    /// The maximum size of one encoded document, in bytes.
    public var maxBytes: Int
    /// The maximum depth of nested containers.
    public var maxDepth: Int
    /// The maximum number of elements in one array, or entries in one map.
    public var maxCount: Int

    /// 64 MiB, 64 levels, 16 Mi elements.
    public static let standard = CodecLimits()

    /// For what a peer sent: the configuration limited the message's size when it arrived, so it isn't limited again.
    @usableFromInline package static let received = CodecLimits(maxBytes: .max)

    /// Creates limits.
    ///
    /// - Parameters:
    ///   - maxBytes: The maximum size of one encoded document, in bytes.
    ///   - maxDepth: The maximum depth of nested containers.
    ///   - maxCount: The maximum number of elements in one array, or entries in one map.
    @inlinable
    public init(maxBytes: Int = 64 << 20, maxDepth: Int = 64, maxCount: Int = 16 << 20) {
        self.maxBytes = maxBytes
        self.maxDepth = maxDepth
        self.maxCount = maxCount
    }
}
