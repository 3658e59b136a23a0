// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

@main
struct DroverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drover",
        abstract: "A distributed job runner: brokers, and what they and their workers are doing.",
        discussion: """
            A broker is one address for any number of workers. Workers dial it, clients call it:

              drover broker --listen tcp://127.0.0.1:5570
              drover status --broker tcp://127.0.0.1:5570

            The environment variable DROVER_BROKER stands in for --broker.
            """,
        version: "0.1.0",
        subcommands: [
            BrokerCommand.self, StatusCommand.self, WorkersCommand.self, QueuesCommand.self, TopCommand.self,
            PingCommand.self,
        ]
    )
}
