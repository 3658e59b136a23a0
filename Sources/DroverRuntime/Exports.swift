// SPDX-License-Identifier: Apache-2.0

// The identifiers and the codec's protocols are part of the interface: a program that imports Drover must be able to name
// them and to use their members. Nothing else of the two modules is public.
@_exported public import DroverCodec
@_exported public import DroverWire
