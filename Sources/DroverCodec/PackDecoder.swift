// SPDX-License-Identifier: Apache-2.0

@usableFromInline
func decodeValue<Value: Decodable>(_ type: Value.Type, from reader: inout PackReader) throws(CodecError) -> Value {
    throw CodecError(.notDecodable, message: "\(Value.self)")
}
