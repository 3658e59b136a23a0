#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the example and looks at what it prints. DROVER_BIN is the folder of the built programs.
set -euo pipefail

output="$(timeout 60 "${DROVER_BIN:?the folder of the built programs}/map")"
diff - <(grep -v '^progress: [0-9]* of 10000, ' <<<"$output") <<'EXPECTED'
longest:  6171, 261 steps
progress: 10000 of 10000
in order: [0, 1, 7, 2, 5, 8, 16, 3, 19, 6]
item 0:   27 takes 111 steps
item 1:   failed, -5 never comes to one
item 2:   97 takes 118 steps
stream:   6 takes 8 steps
stream:   7 takes 16 steps
stream:   8 takes 3 steps
EXPECTED
