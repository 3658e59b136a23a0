# SPDX-License-Identifier: Apache-2.0
"""Maps a trivial function with ProcessPoolExecutor and two processes: prints items_per_s. Argument: N.

Tries several chunk sizes and reports the best of them, each measured once the processes are warm.
"""

import ctypes
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

PR_SET_PDEATHSIG = 1


def following(number):
    return number + 1


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    count = int(sys.argv[1])
    best, best_size = 0.0, 0
    with ProcessPoolExecutor(max_workers=2) as pool:
        list(pool.map(following, range(1000)))
        for size in (64, 256, 1024, 4096, 16384, max(1, count // 2)):
            started = time.monotonic()
            total = sum(pool.map(following, range(count), chunksize=size))
            rate = count / (time.monotonic() - started)
            assert total == count * (count + 1) // 2
            if rate > best:
                best, best_size = rate, size
    print(f"role=map count={count} chunk={best_size} items_per_s={best:.0f}", flush=True)


if __name__ == "__main__":
    main()
