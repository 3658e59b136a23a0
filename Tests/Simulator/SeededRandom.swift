// SPDX-License-Identifier: Apache-2.0

/// A small generator (SplitMix64) whose whole sequence follows from its seed.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) {
        self.state = seed
    }

    package mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed &>> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed &>> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed &>> 31)
    }

    /// A number below `bound`, which must not be zero.
    package mutating func below(_ bound: Int) -> Int {
        Int(self.next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// True once in `count` times.
    package mutating func oneIn(_ count: Int) -> Bool {
        self.below(count) == 0
    }

    /// A generator of its own sequence, so that drawing from it doesn't disturb this one.
    package mutating func split() -> SeededRandom {
        SeededRandom(seed: self.next())
    }
}
