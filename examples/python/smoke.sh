#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Lets Python and Swift talk, each as client and as worker. DROVER_BIN is the folder of the built programs,
# DROVER_PYTHON the Python that has pyzmq and msgpack.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
readonly python="${DROVER_PYTHON:-python3}"
readonly peer="${DROVER_BIN:?the folder of the built programs}/PythonPeer"
readonly patience=60

if ! "$python" -c 'import msgpack, zmq' 2>/dev/null; then
    echo "skipped: $python lacks pyzmq or msgpack (pip install pyzmq msgpack)"
    exit 0
fi

scratch="$(mktemp -d)"
workers=()
finish() {
    exec 9>&- 2>/dev/null || true
    for worker in "${workers[@]}"; do kill "$worker" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

# Runs a worker, gives its endpoint to a client, and stops the worker by ending its input.
exchange() {
    local name="$1" worker=("${@:2:2}") client=("${@:4}") endpoint="" status=0
    echo "-- $name"
    mkfifo "$scratch/$name.in"
    timeout "$patience" "${worker[@]}" <"$scratch/$name.in" >"$scratch/$name.out" 2>"$scratch/$name.err" &
    local id=$!
    workers+=("$id")
    exec 9>"$scratch/$name.in"
    for _ in $(seq 1 500); do
        endpoint="$(head -n 1 "$scratch/$name.out")"
        [[ -n "$endpoint" ]] && break
        kill -0 "$id" 2>/dev/null || break
        sleep 0.02
    done
    if [[ -z "$endpoint" ]]; then
        echo "the worker did not start:"
        cat "$scratch/$name.err"
        return 1
    fi
    timeout "$patience" "${client[@]}" "$endpoint" 9>&- || status=$?
    exec 9>&-
    wait "$id" || status=$?
    if [[ "$status" != 0 ]]; then
        echo "failed with status $status; the worker said:"
        cat "$scratch/$name.err"
    fi
    return "$status"
}

echo "-- sessions"
timeout "$patience" "$python" "$here/sessions.py"
exchange python-python "$python" "$here/worker.py" "$python" "$here/client.py"
exchange python-swift "$peer" worker "$python" "$here/client.py"
exchange swift-python "$python" "$here/worker.py" "$peer" client
echo "python: ok"
