#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Hashes a folder made for it, with and without killing a worker, and interrupts a run. DROVER_BIN is the folder of the
# built programs.
set -euo pipefail

readonly offload="${DROVER_BIN:?the folder of the built programs}/offload"
scratch="$(mktemp -d)"
running=""
finish() {
    [[ -z "$running" ]] || kill -KILL "$running" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT

fail() {
    echo "failed: $*" >&2
    exit 1
}

# The pids that the first line of a run names.
workers() { sed -n 's/.*; workers: \([0-9, ]*\).*/\1/p' "$1" | tr -d ','; }

# Waits up to 20 s for a command to succeed.
eventually() {
    for _ in $(seq 400); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}

# Whether none of the processes is left.
are_gone() {
    local pid
    for pid in "$@"; do
        if kill -0 "$pid" 2>/dev/null; then return 1; fi
    done
}

mkdir -p "$scratch/files/a folder/below"
for index in $(seq 400); do head -c "$((index * 97))" /dev/zero | tr '\0' x >"$scratch/files/a folder/$index"; done
# Sizes around the block of the hash, and names that need care.
for length in 0 1 55 56 57 63 64 65 119 120 128; do head -c "$length" /dev/zero >"$scratch/files/length-$length"; done
echo text >"$scratch/files/a folder/below/"$'a\nline\\break'
echo text >"$scratch/files/-dash"
ln -s length-1 "$scratch/files/link"
count="$(find "$scratch/files" -type f -printf x | wc -c)"

echo "-- kills a worker half way"
timeout 120 "$offload" "$scratch/files" >"$scratch/log" || { cat "$scratch/log"; fail "status $?"; }
grep -q "^hashed    $count files" "$scratch/log" || { cat "$scratch/log"; fail "not $count files"; }
grep -q '^killed worker' "$scratch/log" || fail "no worker was killed"
grep -q '^sha256sum agrees on every file$' "$scratch/log" || fail "sha256sum doesn't agree"
read -ra pids <<<"$(workers "$scratch/log")"
((${#pids[@]} == 2)) || fail "not two workers: ${pids[*]}"
are_gone "${pids[@]}" || fail "a worker is left"

echo "-- kills none of three"
timeout 120 "$offload" --workers 3 --no-kill "$scratch/files" >"$scratch/log" || fail "status $?"
grep -q '^sent again 0 calls, no worker was killed$' "$scratch/log" || fail "calls were sent again"

echo "-- goes through a broker, which is killed and comes back"
timeout 120 "$offload" --pool "$scratch/files" >"$scratch/log" || { cat "$scratch/log"; fail "status $?"; }
grep -q '^killed worker .* and started worker' "$scratch/log" || fail "no worker was replaced"
grep -q '^killed broker .* and started broker' "$scratch/log" || fail "no broker was replaced"
grep -q '^sha256sum agrees on every file$' "$scratch/log" || { cat "$scratch/log"; fail "sha256sum doesn't agree"; }

echo "-- ends its workers when it is interrupted"
truncate -s 64G "$scratch/files/endless"
"$offload" "$scratch/files" >"$scratch/log" &
running=$!
# Files are hashed in the order of their names, so 64 GiB of nothing is still in work a moment later.
eventually grep -q '; workers: ' "$scratch/log" || fail "it does not start"
read -ra pids <<<"$(workers "$scratch/log")"
kill -INT "$running"
status=0
wait "$running" || status=$?
running=""
((status == 130)) || fail "status $status after SIGINT"
eventually are_gone "${pids[@]}" || fail "a worker outlived the interrupt"

echo "-- refuses what it can't do"
status=0
"$offload" --frobnicate 2>/dev/null || status=$?
((status == 2)) || fail "status $status for an unknown option"
status=0
"$offload" "$scratch/nothing" 2>/dev/null || status=$?
((status == 1)) || fail "status $status for a folder that isn't there"
