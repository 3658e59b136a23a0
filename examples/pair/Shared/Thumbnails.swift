// SPDX-License-Identifier: Apache-2.0
public import Drover

// What both programs know: the function's name and its types.

/// A picture to make smaller.
public struct Picture: Codable, Sendable {
    /// What its file is called.
    public var name: String
    /// In pixels.
    public var width: Int
    /// In pixels.
    public var height: Int

    /// Creates a picture's description.
    public init(name: String, width: Int, height: Int) {
        self.name = name
        self.width = width
        self.height = height
    }
}

extension Function {
    /// Makes a picture fit a square of so many pixels; it may run twice without harm.
    public static var shrink: Function<Picture, Int, Picture> { .init("shrink", isIdempotent: true) }
}
