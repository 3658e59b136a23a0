// SPDX-License-Identifier: Apache-2.0
import Drover
import Thumbnails

/// Listens at the address that it is given, and prints where; or dials a broker.
@main
struct PairWorker {
    static func main() async throws {
        let address = CommandLine.arguments.dropFirst().first ?? "tcp://127.0.0.1:*"
        let isBroker = CommandLine.arguments.contains("--broker")
        let worker = Worker()
        worker.register(.shrink) { (picture: Picture, side: Int) in
            let longest = max(picture.width, picture.height, 1)
            return Picture(
                name: picture.name,
                width: picture.width * side / longest,
                height: picture.height * side / longest
            )
        }
        let running = try worker.start(isBroker ? .connect(address) : .bind(address))
        print(running.endpoint)
        // Until SIGTERM or Ctrl-C; calls that run are finished first.
        await running.runUntilAsked()
    }
}
