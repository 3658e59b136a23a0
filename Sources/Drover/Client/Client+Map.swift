// SPDX-License-Identifier: Apache-2.0

public import DroverCodec
internal import DroverRuntime

extension Client {
    /// Calls a function for every item of a sequence.
    ///
    /// ```swift
    /// for try await (path, digest) in client.map(.checksum, over: paths) { print(digest, path) }
    /// ```
    ///
    /// A function of several arguments takes tuples. Sends nothing before the batch is iterated.
    ///
    /// - Parameters:
    ///   - function: The declaration.
    ///   - inputs: The arguments; read as results are taken, where the batch is iterated. It should not keep its reader
    ///     waiting: results wait as well then.
    ///   - options: How the batch is run.
    /// - Returns: The batch, to be iterated.
    @inlinable
    public func map<each Argument, Output, Inputs: Sequence>(
        _ function: Function<repeat each Argument, Output>,
        over inputs: Inputs,
        _ options: MapOptions = .init()
    ) -> Batch<Inputs.Element, Output> where Inputs.Element == (repeat each Argument) {
        self.function(function).map(over: inputs, options)
    }

    /// Calls a function for every item of an asynchronous sequence.
    ///
    /// A function of several arguments takes tuples. Sends nothing before the batch is iterated.
    ///
    /// - Parameters:
    ///   - function: The declaration.
    ///   - inputs: The arguments; read by a task of their own, as long as the window has room. What it throws is thrown to
    ///     the consumer, after the results of all items that came before.
    ///   - options: How the batch is run.
    /// - Returns: The batch, to be iterated.
    @inlinable
    public func map<each Argument, Output, Inputs: AsyncSequence & Sendable>(
        _ function: Function<repeat each Argument, Output>,
        over inputs: Inputs,
        _ options: MapOptions = .init()
    ) -> Batch<Inputs.Element, Output> where Inputs.Element == (repeat each Argument) {
        self.function(function).map(over: inputs, options)
    }
}

extension RemoteFunction {
    /// Calls this function for every item of a sequence; see `Client.map`.
    ///
    /// - Parameters:
    ///   - inputs: The arguments, tuples if there are several.
    ///   - options: How the batch is run.
    /// - Returns: The batch, to be iterated.
    @inlinable
    public func map<Inputs: Sequence>(
        over inputs: Inputs,
        _ options: MapOptions = .init()
    ) -> Batch<Inputs.Element, Result> where Inputs.Element == (repeat each Argument) {
        var iterator = inputs.makeIterator()
        // Of a sequence that isn't a collection it is only a lower bound.
        let total = inputs is any Collection ? inputs.underestimatedCount : 0
        return self.batch(.sequence { iterator.next() }, total: total > 0 ? total : nil, options)
    }

    /// Calls this function for every item of an asynchronous sequence.
    ///
    /// - Parameters:
    ///   - inputs: The arguments, tuples if there are several.
    ///   - options: How the batch is run.
    /// - Returns: The batch, to be iterated.
    @inlinable
    public func map<Inputs: AsyncSequence & Sendable>(
        over inputs: Inputs,
        _ options: MapOptions = .init()
    ) -> Batch<Inputs.Element, Result> where Inputs.Element == (repeat each Argument) {
        let function = self.mapped(options)
        let maker: CallMaker<Inputs.Element, Result> = { input in try function.unstarted(repeat each input) }
        let source = BatchSource<Inputs.Element, Result>.feed { feed in feed.start(inputs, maker) }
        return Batch(
            source,
            of: self.core,
            total: nil,
            options: options,
            // An item is sent as soon as it is there, and nobody can tell whether another one follows at once.
            chunks: ChunkMaking(function: self.info, options: function.options, chunking: .none),
            coding: function.itemCoding,
            make: maker
        )
    }

    @inlinable
    func batch(
        _ source: BatchSource<(repeat each Argument), Result>,
        total: Int?,
        _ options: MapOptions
    ) -> Batch<(repeat each Argument), Result> {
        let function = self.mapped(options)
        return Batch(
            source,
            of: self.core,
            total: total,
            options: options,
            chunks: ChunkMaking(function: self.info, options: function.options, chunking: options.chunking),
            coding: function.itemCoding,
            make: { input in try function.unstarted(repeat each input) }
        )
    }

    @inlinable var itemCoding: ItemCoding<(repeat each Argument), Result> {
        let function = self.function
        return ItemCoding(
            pack: { (input: (repeat each Argument), writer: inout PackWriter) throws(CodecError) in
                try function.packArguments(&writer, repeat each input)
            },
            unpack: function.unpackResult
        )
    }

    @inlinable
    func mapped(_ options: MapOptions) -> RemoteFunction<repeat each Argument, Result> {
        options.call.map { self.with($0) } ?? self
    }

    /// Makes a call that has a place already, and doesn't start it.
    @inlinable
    func unstarted(_ argument: repeat each Argument) throws -> AsyncResult<Result> {
        var writer = try self.core.beginRequest(self.options, of: self.info)
        try self.function.packArguments(&writer, repeat each argument)
        let ticket = try self.core.encoded(writer, of: self.info, options: self.options, expiry: self.options.expiry)
        return AsyncResult<Result>(ticket, readResult: self.function.readResult)
    }
}
