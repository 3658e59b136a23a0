#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the example and looks at what it prints. DROVER_BIN is the folder of the built programs.
set -euo pipefail

output="$(timeout 60 "${DROVER_BIN:?the folder of the built programs}/hello")"
grep -qx 'Hello, world!' <<<"$output"
grep -qx 'awaited: Hello, handle!' <<<"$output"
grep -q '^called back: .*Hello, handle!' <<<"$output"
