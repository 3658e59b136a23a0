#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the example and looks at what it prints. DROVER_BIN is the folder of the built programs.
set -euo pipefail

diff - <(timeout 60 "${DROVER_BIN:?the folder of the built programs}/timed") <<'EXPECTED'
async:     ready at once? false
async:     300 ms later
timed:     50 ms are within the limit
timed:     nap expired, its limit was 0.2 seconds
timed:     hasExpired true, isReady false, hasError false
setExpiry: nap expired, its limit was 0.1 seconds
setExpiry: changes an ended call? false
cancel:    ended it? true, a second time? false
cancel:    called back with cancelled
EXPECTED
