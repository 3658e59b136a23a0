// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import DroverZMQ

@Suite("Mailbox", .timeLimit(.minutes(1)))
struct MailboxTests {
    /// Something posted: who sent it, and which one of his it is.
    private final class Letter: MailboxNode {
        let mailboxLink = MailboxLink()
        let sender: Int
        let number: Int
        let released: Counter?

        init(sender: Int, number: Int, released: Counter? = nil) {
            self.sender = sender
            self.number = number
            self.released = released
        }

        deinit {
            self.released?.increment()
        }
    }

    @Test("an empty mailbox gives an empty chain")
    func empty() throws {
        let mailbox = try Mailbox<Letter>()
        var chain = mailbox.takeAll()
        #expect(chain.next() == nil)
        #expect(mailbox.isEmpty == true)
    }

    @Test("letters come out in the order they were posted, and may be posted again")
    func order() throws {
        let mailbox = try Mailbox<Letter>()
        for number in 0..<5 { mailbox.push(Letter(sender: 0, number: number)) }
        var chain = mailbox.takeAll()
        var numbers: [Int] = []
        while let letter = chain.next() {
            numbers.append(letter.number)
            if letter.number < 2 { mailbox.push(letter) }
        }
        #expect(numbers == [0, 1, 2, 3, 4])
        var again = mailbox.takeAll()
        #expect(again.next()?.number == 0)
        #expect(again.next()?.number == 1)
        #expect(again.next() == nil)
    }

    @Test("each letter is released once: when read, left in a chain, or left in the mailbox")
    func releases() throws {
        let released = Counter()
        do {
            let mailbox = try Mailbox<Letter>()
            for number in 0..<10 { mailbox.push(Letter(sender: 0, number: number, released: released)) }
            do {
                var chain = mailbox.takeAll()
                #expect(chain.next()?.number == 0)
                #expect(released.value == 1)
            }
            #expect(released.value == 10)
            for number in 0..<10 { mailbox.push(Letter(sender: 0, number: number, released: released)) }
            #expect(released.value == 10)
        }
        #expect(released.value == 20)
    }

    @Test("the waker is signalled only if the consumer announced its sleep, and once")
    func wakesSleepersOnly() throws {
        let mailbox = try Mailbox<Letter>()
        mailbox.push(Letter(sender: 0, number: 0))
        #expect(!mailbox.waker.drain())
        #expect(!mailbox.prepareToSleep())
        _ = mailbox.takeAll()
        #expect(mailbox.prepareToSleep())
        mailbox.push(Letter(sender: 0, number: 1))
        mailbox.push(Letter(sender: 0, number: 2))
        #expect(mailbox.waker.drain())
        _ = mailbox.takeAll()
        mailbox.push(Letter(sender: 0, number: 3))
        #expect(!mailbox.waker.drain())
    }

    @Test("a wake-up from outside is drained too, so that the next poll sleeps")
    func outsideWakeIsDrained() throws {
        let mailbox = try Mailbox<Letter>()
        #expect(mailbox.prepareToSleep())
        mailbox.waker.wake()
        mailbox.didWake(isSignalled: true)
        #expect(!mailbox.waker.drain())
    }

    @Test("four producers, a consumer that sleeps: all letters arrive, each producer's in order")
    func producers() throws {
        let (senders, count) = (4, 100_000)
        let mailbox = try Mailbox<Letter>()
        let released = Counter()
        let threads = try (0..<senders)
            .map { sender in
                try LoopThread.start(named: "producer \(sender)") {
                    for number in 0..<count {
                        mailbox.push(Letter(sender: sender, number: number, released: released))
                    }
                }
            }
        var poll = PollSet()
        let entry = poll.add(fileDescriptor: mailbox.waker.fileDescriptor)
        var next = Array(repeating: 0, count: senders)
        var disorder = 0
        while next.contains(where: { $0 < count }) {
            if mailbox.prepareToSleep() { _ = try poll.wait(timeout: nil) }
            mailbox.didWake(isSignalled: poll.isReadable(entry))
            var chain = mailbox.takeAll()
            while let letter = chain.next() {
                if letter.number != next[letter.sender] { disorder += 1 }
                next[letter.sender] = letter.number + 1
            }
        }
        for thread in threads { #expect(thread.join(within: .seconds(30))) }
        #expect(disorder == 0)
        #expect(released.value == senders * count)
    }

    @Test("no wake-up is lost when each letter waits for the answer to the one before")
    func pingPong() throws {
        let count = 20_000
        let (there, back) = (try Mailbox<Letter>(), try Mailbox<Letter>())
        @Sendable func receive(_ mailbox: Mailbox<Letter>, _ poll: inout PollSet) throws -> Int {
            while true {
                var chain = mailbox.takeAll()
                if let letter = chain.next() { return letter.number }
                if mailbox.prepareToSleep() { _ = try poll.wait(timeout: nil) }
                mailbox.didWake()
            }
        }
        let thread = try LoopThread.start(named: "echo") {
            var poll = PollSet()
            _ = poll.add(fileDescriptor: there.waker.fileDescriptor)
            for _ in 0..<count {
                guard let number = try? receive(there, &poll) else { return }
                back.push(Letter(sender: 0, number: number))
            }
        }
        var poll = PollSet()
        _ = poll.add(fileDescriptor: back.waker.fileDescriptor)
        var mistakes = 0
        for number in 0..<count {
            there.push(Letter(sender: 0, number: number))
            if try receive(back, &poll) != number { mistakes += 1 }
        }
        #expect(mistakes == 0)
        #expect(thread.join(within: .seconds(30)))
    }
}
