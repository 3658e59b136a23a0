// SPDX-License-Identifier: Apache-2.0

extension Row {
    /// All rows, in the order of the table.
    ///
    /// Unless a row says otherwise: 64 bytes of payload over tcp on the loopback, two processes.
    static let all: [Row] = [
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
        Row(
            "rpyc-blocking",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .below, 1)],
            baseline: RPyCBaseline.blocking,
            measures: "blocking-call"
        ),
        Row(
            "rpyc-pipelined",
            unit: "calls/s",
            better: .higher,
            goals: [Goal(.ratio, .atLeast, 40)],
            baseline: RPyCBaseline.pipelined,
            measures: "pipelined-coalesced"
        ),
        Row(
            "rpyc-callback",
            unit: "us",
            better: .lower,
            goals: [Goal(.ratio, .below, 1)],
            baseline: RPyCBaseline.callback,
            alternative: RPyCBaseline.pausingCallback,
            measures: "callback-latency"
        ),
        Row(
            "rpyc-events",
            unit: "events/s",
            better: .higher,
            goals: [Goal(.ratio, .above, 1)],
            baseline: RPyCBaseline.events,
            alternative: RPyCBaseline.pausingEvents,
            measures: "events"
        ),
    ]
}
