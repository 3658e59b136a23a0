// SPDX-License-Identifier: Apache-2.0

// Containers of the commonest elements are handled here: a generic loop is many times slower if it isn't specialized,
// and it isn't where the container is a field of a structure.

extension PackWriter {
    /// Writes the elements of an array if they are numbers, truth values or texts; returns whether they are.
    @usableFromInline
    mutating func packCommon<Element>(elements: [Element]) throws(CodecError) -> Bool {
        if Element.self == Int.self {
            for element in unsafe unsafeBitCast(elements, to: [Int].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Double.self {
            for element in unsafe unsafeBitCast(elements, to: [Double].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == String.self {
            for element in unsafe unsafeBitCast(elements, to: [String].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Float.self {
            for element in unsafe unsafeBitCast(elements, to: [Float].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Bool.self {
            for element in unsafe unsafeBitCast(elements, to: [Bool].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int8.self {
            for element in unsafe unsafeBitCast(elements, to: [Int8].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int16.self {
            for element in unsafe unsafeBitCast(elements, to: [Int16].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int32.self {
            for element in unsafe unsafeBitCast(elements, to: [Int32].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int64.self {
            for element in unsafe unsafeBitCast(elements, to: [Int64].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == UInt.self {
            for element in unsafe unsafeBitCast(elements, to: [UInt].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == UInt16.self {
            for element in unsafe unsafeBitCast(elements, to: [UInt16].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == UInt32.self {
            for element in unsafe unsafeBitCast(elements, to: [UInt32].self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == UInt64.self {
            for element in unsafe unsafeBitCast(elements, to: [UInt64].self) { try element.pack(into: &self) }
            return true
        }
        return false
    }

    /// Writes the elements of a set if they are of a common type; returns whether they are.
    @usableFromInline
    mutating func packCommon<Element>(members: Set<Element>) throws(CodecError) -> Bool {
        if Element.self == String.self {
            for element in unsafe unsafeBitCast(members, to: Set<String>.self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int.self {
            for element in unsafe unsafeBitCast(members, to: Set<Int>.self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == Int64.self {
            for element in unsafe unsafeBitCast(members, to: Set<Int64>.self) { try element.pack(into: &self) }
            return true
        }
        if Element.self == UInt64.self {
            for element in unsafe unsafeBitCast(members, to: Set<UInt64>.self) { try element.pack(into: &self) }
            return true
        }
        return false
    }

    /// Writes the entries of a dictionary if they are of common types; returns whether they are.
    @usableFromInline
    mutating func packCommon<Key, Value>(entries: [Key: Value]) throws(CodecError) -> Bool {
        if Key.self == String.self && Value.self == String.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [String: String].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == String.self && Value.self == Int.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [String: Int].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == String.self && Value.self == Double.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [String: Double].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == String.self && Value.self == Bool.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [String: Bool].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == Int.self && Value.self == String.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [Int: String].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == Int.self && Value.self == Int.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [Int: Int].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        if Key.self == Int.self && Value.self == Double.self {
            for (key, value) in unsafe unsafeBitCast(entries, to: [Int: Double].self) {
                try key.pack(into: &self)
                try value.pack(into: &self)
            }
            return true
        }
        return false
    }
}

extension PackReader {
    /// Reads an array of numbers, truth values or texts; nil if the elements are others.
    @usableFromInline
    mutating func readCommonElements<Element>(_ type: Element.Type) throws(CodecError) -> [Element]? {
        if Element.self == Int.self {
            return unsafe unsafeBitCast(try self.readElements(Int.self), to: [Element].self)
        }
        if Element.self == Double.self {
            return unsafe unsafeBitCast(try self.readElements(Double.self), to: [Element].self)
        }
        if Element.self == String.self {
            return unsafe unsafeBitCast(try self.readElements(String.self), to: [Element].self)
        }
        if Element.self == Float.self {
            return unsafe unsafeBitCast(try self.readElements(Float.self), to: [Element].self)
        }
        if Element.self == Bool.self {
            return unsafe unsafeBitCast(try self.readElements(Bool.self), to: [Element].self)
        }
        if Element.self == Int8.self {
            return unsafe unsafeBitCast(try self.readElements(Int8.self), to: [Element].self)
        }
        if Element.self == Int16.self {
            return unsafe unsafeBitCast(try self.readElements(Int16.self), to: [Element].self)
        }
        if Element.self == Int32.self {
            return unsafe unsafeBitCast(try self.readElements(Int32.self), to: [Element].self)
        }
        if Element.self == Int64.self {
            return unsafe unsafeBitCast(try self.readElements(Int64.self), to: [Element].self)
        }
        if Element.self == UInt.self {
            return unsafe unsafeBitCast(try self.readElements(UInt.self), to: [Element].self)
        }
        if Element.self == UInt16.self {
            return unsafe unsafeBitCast(try self.readElements(UInt16.self), to: [Element].self)
        }
        if Element.self == UInt32.self {
            return unsafe unsafeBitCast(try self.readElements(UInt32.self), to: [Element].self)
        }
        if Element.self == UInt64.self {
            return unsafe unsafeBitCast(try self.readElements(UInt64.self), to: [Element].self)
        }
        return nil
    }

    /// Reads a set of elements of a common type; nil if they are of another type.
    @usableFromInline
    mutating func readCommonMembers<Element>(_ type: Element.Type) throws(CodecError) -> Set<Element>? {
        if Element.self == String.self {
            return unsafe unsafeBitCast(try self.readMembers(String.self), to: Set<Element>.self)
        }
        if Element.self == Int.self {
            return unsafe unsafeBitCast(try self.readMembers(Int.self), to: Set<Element>.self)
        }
        if Element.self == Int64.self {
            return unsafe unsafeBitCast(try self.readMembers(Int64.self), to: Set<Element>.self)
        }
        if Element.self == UInt64.self {
            return unsafe unsafeBitCast(try self.readMembers(UInt64.self), to: Set<Element>.self)
        }
        return nil
    }

    /// Reads a dictionary of common types; nil if its types are others.
    @usableFromInline
    mutating func readCommonEntries<Key, Value>(
        _ key: Key.Type,
        _ value: Value.Type
    ) throws(CodecError) -> [Key: Value]? {
        if Key.self == String.self && Value.self == String.self {
            return unsafe unsafeBitCast(try self.readEntries(String.self, String.self), to: [Key: Value].self)
        }
        if Key.self == String.self && Value.self == Int.self {
            return unsafe unsafeBitCast(try self.readEntries(String.self, Int.self), to: [Key: Value].self)
        }
        if Key.self == String.self && Value.self == Double.self {
            return unsafe unsafeBitCast(try self.readEntries(String.self, Double.self), to: [Key: Value].self)
        }
        if Key.self == String.self && Value.self == Bool.self {
            return unsafe unsafeBitCast(try self.readEntries(String.self, Bool.self), to: [Key: Value].self)
        }
        if Key.self == Int.self && Value.self == String.self {
            return unsafe unsafeBitCast(try self.readEntries(Int.self, String.self), to: [Key: Value].self)
        }
        if Key.self == Int.self && Value.self == Int.self {
            return unsafe unsafeBitCast(try self.readEntries(Int.self, Int.self), to: [Key: Value].self)
        }
        if Key.self == Int.self && Value.self == Double.self {
            return unsafe unsafeBitCast(try self.readEntries(Int.self, Double.self), to: [Key: Value].self)
        }
        return nil
    }
}
