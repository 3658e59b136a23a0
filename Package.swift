// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

/// Rules that every target of ours obeys.
let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

/// Also demands `unsafe` at each unsafe expression.
let memorySafe = strict + [.strictMemorySafety()]

let package = Package(
    name: "drover",
    products: [
        .library(name: "Drover", targets: ["Drover"]),
        .library(name: "DroverBroker", targets: ["DroverBroker"]),
        .executable(name: "drover", targets: ["DroverTool"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
    ],
    targets: [
        // The C library of the system.
        .systemLibrary(name: "CDroverZMQ", providers: [.apt(["libzmq3-dev"])]),

        // Pure: no sockets, threads, clocks, randomness or files.
        .target(name: "DroverCodec", swiftSettings: memorySafe),
        .target(name: "DroverWire", dependencies: ["DroverCodec"], swiftSettings: memorySafe),
        .target(
            name: "DroverCore",
            dependencies: ["DroverWire", .product(name: "DequeModule", package: "swift-collections")],
            swiftSettings: memorySafe
        ),

        // Shells.
        .target(name: "DroverZMQ", dependencies: ["CDroverZMQ"], swiftSettings: memorySafe),
        // What clients, workers and brokers have in common.
        .target(
            name: "DroverRuntime",
            dependencies: [
                "DroverCodec", "DroverCore", "DroverWire", "DroverZMQ",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: memorySafe
        ),
        .target(
            name: "Drover",
            dependencies: [
                "DroverCodec", "DroverCore", "DroverRuntime", "DroverWire", "DroverZMQ",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: memorySafe
        ),

        .target(
            name: "DroverBroker",
            dependencies: [
                "DroverCodec", "DroverCore", "DroverRuntime", "DroverWire", "DroverZMQ",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: memorySafe
        ),

        // The tool, `drover`: a user of the libraries.
        .executableTarget(
            name: "DroverTool",
            dependencies: [
                "Drover", "DroverBroker", "DroverCore",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),

        // Shared by tests; no product.
        .target(
            name: "Simulator",
            dependencies: ["DroverCore", "DroverWire"],
            path: "Tests/Simulator",
            swiftSettings: strict
        ),

        // Many seeds of it, optimised: `make simulate`.
        .executableTarget(name: "Simulate", dependencies: ["Simulator"], path: "Tests/Simulate", swiftSettings: strict),

        // Pure tests.
        .testTarget(name: "DroverCodecTests", dependencies: ["DroverCodec"], swiftSettings: strict),
        .testTarget(name: "DroverWireTests", dependencies: ["DroverWire"], swiftSettings: strict),
        .testTarget(
            name: "DroverCoreTests",
            dependencies: ["DroverCore", "DroverWire", "Simulator"],
            swiftSettings: strict
        ),
        .testTarget(name: "SimulationTests", dependencies: ["Simulator"], swiftSettings: strict),
        .testTarget(name: "TidyTests", swiftSettings: strict),

        // Tests with threads, sockets, files and processes.
        .testTarget(name: "DroverZMQTests", dependencies: ["DroverZMQ"], swiftSettings: strict),

        // A worker that the tests kill, stop and restart.
        .executableTarget(
            name: "fault-worker",
            dependencies: ["Drover", .product(name: "Logging", package: "swift-log")],
            path: "Tests/FaultWorker",
            swiftSettings: strict
        ),
        // Peers of libzmq alone that do what they may not.
        .executableTarget(
            name: "Attackers",
            dependencies: ["CDroverZMQ"],
            path: "Tests/Attackers",
            swiftSettings: strict
        ),
        .testTarget(
            name: "DroverTests",
            dependencies: [
                "Drover", "DroverCodec", "DroverCore", "DroverRuntime", "DroverWire", "DroverZMQ", "fault-worker",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),

        .testTarget(
            name: "DroverBrokerTests",
            dependencies: [
                "Attackers", "CDroverZMQ", "Drover", "DroverBroker", "DroverTool", "DroverZMQ", "fault-worker",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),

        // Examples; the check that each brings runs in `make examples`.
        .executableTarget(
            name: "hello",
            dependencies: ["Drover"],
            path: "examples/hello",
            exclude: ["README.md", "smoke.sh"],
            swiftSettings: strict
        ),
        .target(
            name: "Thumbnails",
            dependencies: ["Drover"],
            path: "examples/pair/Shared",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "pair-worker",
            dependencies: ["Drover", "Thumbnails"],
            path: "examples/pair/Worker",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "pair-client",
            dependencies: ["Drover", "Thumbnails"],
            path: "examples/pair/Client",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "offload",
            dependencies: ["Drover", "DroverBroker", .product(name: "Logging", package: "swift-log")],
            path: "examples/offload",
            exclude: ["README.md", "smoke.sh"],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "events",
            dependencies: ["Drover"],
            path: "examples/events",
            exclude: ["README.md", "smoke.sh"],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "timed",
            dependencies: ["Drover"],
            path: "examples/timed",
            exclude: ["README.md", "smoke.sh"],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "map",
            dependencies: ["Drover"],
            path: "examples/map",
            exclude: ["README.md", "smoke.sh"],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "PythonPeer",
            dependencies: ["Drover"],
            path: "examples/python/PythonPeer",
            swiftSettings: strict
        ),

        // Measured side by side by `make bench`.
        .executableTarget(
            name: "Benchmarks",
            dependencies: ["Drover"],
            path: "Tests/Benchmarks",
            exclude: ["msgpack_baseline.py", "rpyc_baseline.py"],
            swiftSettings: strict
        ),
        .executableTarget(name: "PlainZMQ", path: "Tests/PlainZMQ", linkerSettings: [.linkedLibrary("zmq")]),
    ],
    swiftLanguageModes: [.v6]
)

// Fuzzers have no main of their own, so they exist only when asked for: see `make fuzz`.
if Context.environment["DROVER_FUZZ"] != nil {
    package.targets += [
        .executableTarget(
            name: "FuzzCodec",
            dependencies: ["DroverCodec"],
            path: "Tests/Fuzz/FuzzCodec",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "FuzzWire",
            dependencies: ["DroverCodec", "DroverWire"],
            path: "Tests/Fuzz/FuzzWire",
            swiftSettings: memorySafe
        ),
    ]
}
