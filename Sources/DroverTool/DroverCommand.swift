// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

@main
struct DroverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drover",
        abstract: "A distributed job runner: brokers, and what they and their workers are doing.",
        discussion: """
            A broker is one address for any number of workers. Workers dial it, clients call it:

              drover broker --listen tcp://127.0.0.1:5570
              drover status --broker tcp://127.0.0.1:5570

            Off this machine both sides need keys: see drover keys --help.

            The environment variables DROVER_BROKER, DROVER_KEY, DROVER_SERVER_KEY and DROVER_ALLOW_LIST stand in for --broker, \
            --key, --server-key and --allow-list.
            """,
        version: "0.1.0",
        subcommands: [
            BrokerCommand.self, StatusCommand.self, WorkersCommand.self, QueuesCommand.self, TopCommand.self,
            WhyCommand.self, CancelCommand.self, PingCommand.self, KeysCommand.self,
        ]
    )

    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        if let mistyped = MistypedVerb(in: arguments) {
            FileHandle.standardError.write(Data((mistyped.description + "\n").utf8))
            self.exit(withError: ExitCode.validationFailure)
        }
        await self.main(arguments)
    }
}
