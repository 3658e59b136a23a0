#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts the worker, lets the client call it, and ends the worker. DROVER_BIN is the folder of the built programs.
set -euo pipefail

bin="${DROVER_BIN:?the folder of the built programs}"
folder="$(mktemp -d)"
# By a path, whose name is known before the worker listens there: the client waits for it.
address="ipc://$folder/worker.sock"
"$bin/pair-worker" "$address" >"$folder/worker.txt" 2>/dev/null &
worker=$!
trap 'kill "$worker" 2>/dev/null || true; rm -rf "$folder"' EXIT
output="$(timeout 60 "$bin/pair-client" "$address")"
grep -qx 'lake.png: 400 x 300' <<<"$output"
grep -q ' values$' <<<"$output"
kill -TERM "$worker"
wait "$worker"
grep -qx "$address" "$folder/worker.txt"
