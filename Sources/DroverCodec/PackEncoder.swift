// SPDX-License-Identifier: Apache-2.0

@usableFromInline
func encodeValue<Value: Encodable>(_ value: Value, into writer: inout PackWriter) throws(CodecError) {
    throw CodecError(.notEncodable, message: "\(Value.self)")
}
