#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the example and looks at what it prints. DROVER_BIN is the folder of the built programs.
set -euo pipefail

diff - <(timeout 60 "${DROVER_BIN:?the folder of the built programs}/events") <<'EXPECTED'
changed: no file -> no file
changed: no file -> 4 bytes
changed: 4 bytes -> 23 bytes
changed: 23 bytes -> no file
watching: cancelled
EXPECTED
