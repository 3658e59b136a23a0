// SPDX-License-Identifier: Apache-2.0

/// What the codec refuses to write or to read, so that no input makes it use unbounded memory or stack.
public struct CodecLimits: Hashable, Sendable {
    /// The most bytes of one encoded document.
    public var maxBytes: Int
    /// The most containers inside each other.
    public var maxDepth: Int
    /// The most elements of one array, or entries of one map.
    public var maxCount: Int

    /// 64 MiB, 64 levels, 16 Mi elements.
    public static let standard = CodecLimits()

    /// For what a peer sent: the message's size was limited when it came, by the configuration, so it isn't again.
    @usableFromInline package static let received = CodecLimits(maxBytes: .max)

    /// Creates limits.
    ///
    /// - Parameters:
    ///   - maxBytes: The most bytes of one encoded document.
    ///   - maxDepth: The most containers inside each other.
    ///   - maxCount: The most elements of one array, or entries of one map.
    @inlinable
    public init(maxBytes: Int = 64 << 20, maxDepth: Int = 64, maxCount: Int = 16 << 20) {
        self.maxBytes = maxBytes
        self.maxDepth = maxDepth
        self.maxCount = maxCount
    }
}
