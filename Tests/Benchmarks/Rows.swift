// SPDX-License-Identifier: Apache-2.0

extension Row {
    /// All rows, in the order of the table.
    ///
    /// Unless a row says otherwise: 64 bytes of payload over tcp on the loopback, two processes.
    static let all: [Row] = direct + broker + rpyc

    private static let direct: [Row] = [
        Row(
            "blocking-call",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 1.3)],
            baseline: PlainBaseline.blocking
        ),
        Row(
            "await-call",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 1.4)],
            baseline: PlainBaseline.blocking
        ),
        Row(
            "pipelined",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 1.0)],
            baseline: PlainBaseline.pipelined
        ),
        Row(
            "pipelined-coalesced",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 1.5)],
            baseline: PlainBaseline.pipelined
        ),
        Row(
            "tasks-awaiting",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 0.65)],
            baseline: PlainBaseline.pipelined
        ),
        Row(
            "events",
            unit: "events/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 0.6)],
            baseline: PlainBaseline.events
        ),
        Row(
            "bulk",
            unit: "MiB/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 0.8)],
            baseline: PlainBaseline.bulk
        ),
        Row("codec", unit: "ns", better: .lower, goals: [Goal(.value, .atMost, 100)]),
        Row(
            "codec-order",
            unit: "ns",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 1.0)],
            baseline: StructRole.pythonOrder,
            needs: .msgpack
        ),
        Row(
            "codec-points",
            unit: "ns",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 1.0)],
            baseline: StructRole.pythonPoints,
            needs: .msgpack
        ),
        Row(
            "order-calls",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 4.0)],
            baseline: OrderCalls.earlier
        ),
        Row(
            "callback-latency",
            unit: "us",
            better: .lower,
            goals: [Goal(.value, .below, 500), Goal(.p99, .below, 10_000)],
            baseline: PlainBaseline.latency
        ),
        Row(
            "idle-cpu",
            unit: "%",
            better: .lower,
            goals: [Goal(.value, .below, 0.1)],
            baseline: PlainBaseline.idle,
            maxRuns: 3
        ),
        Row("bytes-per-call", unit: "bytes", better: .lower, goals: [Goal(.value, .below, 400)]),
    ]

    /// Through a broker with two workers; it, the workers and the client are processes of their own.
    private static let broker: [Row] = [
        Row(
            "broker-pipelined",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 1.6)],
            baseline: PlainBrokerSides.pipelined
        ),
        Row(
            "broker-proxy",
            unit: "calls/s",
            better: .higher,
            goals: [],
            baseline: PlainBrokerSides.proxy,
            measures: "broker-pipelined"
        ),
        Row(
            "broker-ping",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 1.15)],
            baseline: PlainBrokerSides.ping
        ),
        Row(
            "broker-cpu",
            unit: "us/call",
            better: .lower,
            goals: [Goal(.ratio, .atMost, 0.6)],
            baseline: PlainBrokerSides.cpu
        ),
        Row(
            "broker-idle",
            unit: "%",
            better: .lower,
            goals: [Goal(.value, .below, 1), Goal(.mebibytes, .below, 64)],
            maxRuns: 3
        ),
        Row(
            "broker-bytes-per-call",
            unit: "bytes",
            better: .lower,
            goals: [Goal(.value, .below, 300), Goal(.growth, .atMost, 1.5)],
            maxRuns: 3
        ),
        Row(
            "broker-nats",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 2.5)],
            baseline: PeerSides.nats,
            needs: .nats,
            measures: "broker-pipelined"
        ),
        Row(
            "broker-gearmand",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 20)],
            baseline: PeerSides.gearman,
            needs: .gearman,
            measures: "broker-pipelined"
        ),
        Row(
            "broker-ipyparallel",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 50)],
            baseline: PeerSides.ipyparallel,
            needs: .ipyparallel,
            measures: "broker-pipelined"
        ),
        Row(
            "broker-dask",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 50)],
            baseline: PeerSides.dask,
            needs: .dask,
            measures: "broker-pipelined"
        ),
        Row(
            "map-processpool",
            unit: "items/s",
            better: .higher,
            goals: [Goal(.ratio, .above, 1)],
            baseline: PeerSides.processPool,
            needs: .python
        ),
    ]

    private static let rpyc: [Row] = [
        Row(
            "rpyc-blocking",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .below, 1)],
            baseline: RPyCBaseline.blocking,
            needs: .rpyc,
            measures: "blocking-call"
        ),
        Row(
            "rpyc-pipelined",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 40)],
            baseline: RPyCBaseline.pipelined,
            needs: .rpyc,
            measures: "pipelined-coalesced"
        ),
        Row(
            "rpyc-callback",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .below, 1)],
            baseline: RPyCBaseline.callback,
            alternative: RPyCBaseline.pausingCallback,
            needs: .rpyc,
            measures: "callback-latency"
        ),
        Row(
            "rpyc-events",
            unit: "events/s",
            better: .higher,
            goals: [Goal(.ratio, .above, 1)],
            baseline: RPyCBaseline.events,
            alternative: RPyCBaseline.pausingEvents,
            needs: .rpyc,
            measures: "events"
        ),
    ]
}
