# SPDX-License-Identifier: Apache-2.0
"""What Python's msgpack, with its extension in C, takes to write and to read the values of the codec's rows.

Prints one line of key=value words: write_ns and read_ns, of one value, in processor time.
"""

import sys
import time

import msgpack


def order():
    return {
        "number": 123456,
        "customer": "Ada Lovelace",
        "email": "ada@example.org",
        "isPaid": True,
        "total": 149.25,
        "lines": [
            {"article": f"article-{index}", "count": index + 1, "price": 9.95 * (index + 1)} for index in range(5)
        ],
        "notes": {"gift": "yes", "colour": "green"},
    }


def points():
    return [{"x": index * 0.5, "y": index * 0.25} for index in range(1000)]


def nanoseconds(work, count):
    started = time.process_time_ns()
    for _ in range(count):
        work()
    return (time.process_time_ns() - started) / count


def main():
    value = {"order": order, "points": points}[sys.argv[1]]()
    count = int(sys.argv[2])
    # The pure Python fallback would be no yardstick.
    if msgpack.Packer.__module__ != "msgpack._cmsgpack":
        sys.exit("msgpack has no extension in C here")
    data = msgpack.packb(value)
    nanoseconds(lambda: msgpack.unpackb(msgpack.packb(value)), count // 10)
    # A function of its own is called for each, as a program would; Packer objects that are used again gain a little.
    packb, unpackb = msgpack.packb, msgpack.unpackb
    write = nanoseconds(lambda: packb(value), count)
    read = nanoseconds(lambda: unpackb(data), count)
    print(f"role=msgpack bytes={len(data)} write_ns={write:.0f} read_ns={read:.0f} ns={write + read:.0f}")


if __name__ == "__main__":
    main()
