#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Gets the job systems that `make bench` compares the broker with. Nothing of Drover needs them, so nothing here is
# required: what can't be had is named, and its rows say `missing`. Run it as often as you like.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly root
readonly sources="$root/Tests/BenchmarkPeers"
readonly peers="$root/.build/bench-peers"
readonly packages=(nats-server libnats-dev gearman-job-server libgearman-dev)
readonly modules=(ipyparallel distributed)
missing=()

usage() {
    cat <<'HELP'
Usage: deploy/setup-bench.sh [--check | -h | --help]

Installs the job systems that `make bench` compares Drover's broker with, as far as they are missing:

  by apt-get     nats-server and libnats-dev; gearman-job-server and libgearman-dev
  from PyPI      ipyparallel and distributed (Dask), into .build/bench-peers/venv

and compiles the clients and workers of the first two to .build/bench-peers. apt-get runs as root or through sudo. The
gearmand that Debian starts as a service after installing is not used, and may be disabled.

Options:
  --check        only report; change nothing
  -h, --help     show this help

Exit status: 0 whatever could be had; 2 wrong usage.
HELP
}

say() { printf 'setup-bench: %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

compiler() {
    local name
    for name in cc gcc clang; do
        if has "$name"; then
            printf '%s' "$name"
            return 0
        fi
    done
    return 1
}

has_headers() { printf '#include <%s>\n' "$1" | "$(compiler)" -fsyntax-only -x c - 2>/dev/null; }
has_nats() { has nats-server && has_headers nats/nats.h; }
has_gearman() { has gearmand && has_headers libgearman/gearman.h; }
has_modules() { [[ -x "$peers/venv/bin/python" ]] && "$peers/venv/bin/python" -c 'import distributed, ipyparallel' 2>/dev/null; }

install_packages() {
    if ! has apt-get; then
        say "no apt-get here; install by your system's own means what these packages hold: ${packages[*]}"
        return 0
    fi
    local sudo=()
    if [[ "$(id -u)" -ne 0 ]]; then
        if ! has sudo || ! { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
            say "ask an administrator to run: apt-get install -y ${packages[*]}"
            return 0
        fi
        sudo=(sudo)
    fi
    say "running: apt-get install -y ${packages[*]}"
    "${sudo[@]}" apt-get -q update || say "apt-get update failed; trying with the lists that are there"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install -y --no-install-recommends "${packages[@]}" || say "apt-get could not install them"
}

install_modules() {
    say "installing ${modules[*]} into .build/bench-peers/venv"
    if ! python3 -m venv "$peers/venv" \
        || ! "$peers/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${modules[@]}"; then
        say "that did not work: is python3-venv installed, and the package index reachable?"
    fi
}

# build NAME LIBRARIES...: compiles if the program is older than its source.
build() {
    local name="$1"
    shift
    if [[ ! "$peers/$name" -nt "$sources/$name.c" ]]; then
        "$(compiler)" -O2 -Wall -Wextra -o "$peers/$name" "$sources/$name.c" "$@" || say "could not compile $name"
    fi
}

report() {
    if "$2"; then
        say "found    $1"
    else
        say "missing  $1; its rows are left out"
        missing+=("$1")
    fi
}

main() {
    local mode=install
    case "${1:-}" in
    "") ;;
    --check) mode=check ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    if [[ "$mode" == install ]]; then
        mkdir -p "$peers"
        if ! has_nats || ! has_gearman; then install_packages; fi
        if ! has_modules; then install_modules; fi
        if has_nats; then build nats_peer -lnats -lpthread; fi
        if has_gearman; then build gearman_peer -lgearman; fi
    fi
    report "NATS" has_nats
    report "Gearman" has_gearman
    report "ipyparallel and Dask" has_modules
    if ((${#missing[@]} == 0)); then say "ready"; fi
}

main "$@"
