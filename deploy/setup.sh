#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what Drover needs on Debian and Ubuntu, where a Swift toolchain is already there. Run it as often as you
# like: what is found is left alone. `deploy/setup.sh --help` tells the rest.
set -euo pipefail

readonly minimum_swift="6.2"
readonly minimum_libzmq="4.3.3"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly root
readonly venv="$root/.venv"
readonly requirements="$root/deploy/python-requirements.txt"

# What is pretended to be missing, for trying this script on a machine that has everything.
readonly pretend=" ${DROVER_SETUP_PRETEND_MISSING:-} "

mode=install
with_python=yes
with_stress=no
missing_required=()
missing_optional=()
packages=()
wants_venv=no
scratch=""

usage() {
    cat <<'HELP'
Usage: deploy/setup.sh [OPTION]...

Installs what is missing for building and testing Drover on Debian or Ubuntu:

  required   git, a C compiler, libzmq with its headers (libzmq3-dev)
  optional   Python 3 with pyzmq, msgpack and rpyc, for the tests and benchmarks that talk to Python;
             without it they are skipped and say so
             iproute2 and nftables, for the tests with many hosts, which are network namespaces and need root

A Swift toolchain (6.2 or newer) must already be there: see https://www.swift.org/install/.
Packages are installed by apt-get, as root or through sudo. Without either, the script says what to ask an
administrator for. Python packages go to .venv in the repository, unless python3 has them already.

Options:
  --check         only report; change nothing
  --dry-run       print the commands that would change something, and run none of them
  --no-python     leave alone what only tests and benchmarks need: Python, iproute2, nftables
  --with-stress   also install `stress`, to load the machine during benchmarks
  -h, --help      show this help

Environment:
  DROVER_PYTHON                  the Python to use instead of .venv/bin/python or python3
  DROVER_SETUP_PRETEND_MISSING   of: git compiler libzmq python venv modules network stress apt root sudo; treated as missing,
                                 to try this script out (use it with --check or --dry-run)

Exit status: 0 everything required is there; 1 something required is missing; 2 wrong usage.
HELP
}

say() { printf 'setup: %s\n' "$*"; }
found() { say "found    $*"; }
missing() { say "missing  $*"; }
warn() { printf 'setup: warning: %s\n' "$*" >&2; }

pretends() { [[ "$pretend" == *" $1 "* ]]; }
has() { command -v "$1" >/dev/null 2>&1; }

# at_least HAVE WANTED: compares dotted version numbers.
at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

# Runs a command that changes the machine, or prints it in a dry run.
change() {
    if [[ "$mode" == dry-run ]]; then
        say "would run: $*"
    else
        say "running: $*"
        "$@" </dev/null
    fi
}

is_root() { ! pretends root && [[ "$(id -u)" -eq 0 ]]; }

# sudo counts if it asks nothing, or if somebody is there to be asked.
can_sudo() { ! pretends sudo && has sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; }

as_root() {
    if is_root; then
        change "$@"
    elif [[ "$mode" == dry-run ]]; then
        change sudo "$@"
    else
        # Not through `change`: sudo may have to ask for a password.
        say "running: sudo $*"
        sudo "$@"
    fi
}

find_compiler() {
    pretends compiler && return 1
    local name
    for name in cc gcc clang; do
        if has "$name"; then
            printf '%s' "$name"
            return 0
        fi
    done
    return 1
}

# Prints libzmq's version by compiling, linking and running a program, which proves header and library together.
libzmq_version() {
    pretends libzmq && return 1
    local compiler
    compiler="$(find_compiler)" || return 1
    [[ -n "$scratch" ]] || scratch="$(mktemp -d)"
    cat >"$scratch/version.c" <<'C'
#include <stdio.h>
#include <zmq.h>
int main(void) {
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    printf("%d.%d.%d\n", major, minor, patch);
    return 0;
}
C
    "$compiler" -o "$scratch/version" "$scratch/version.c" -lzmq 2>/dev/null && "$scratch/version"
}

python_version() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

# Prints the versions of the modules if that Python has all of them.
python_modules() {
    pretends modules && return 1
    "$1" -c 'import msgpack, rpyc, zmq
print("pyzmq %s, msgpack %s, rpyc %s" % (
    zmq.pyzmq_version(), ".".join(map(str, msgpack.version)), ".".join(map(str, rpyc.__version__))
    if isinstance(rpyc.__version__, tuple) else rpyc.__version__))' 2>/dev/null
}

check_swift() {
    if ! has swift; then
        missing "Swift: install a toolchain, $minimum_swift or newer, from https://www.swift.org/install/"
        missing_required+=(swift)
        return
    fi
    local version
    version="$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9.]*\).*/\1/p' | head -n 1)"
    if [[ -z "$version" ]] || ! at_least "$version" "$minimum_swift"; then
        missing "Swift $minimum_swift or newer: $(command -v swift) is version ${version:-unknown}"
        missing_required+=(swift)
    else
        found "Swift $version ($(command -v swift))"
    fi
}

check_git() {
    if ! pretends git && has git; then
        found "git ($(command -v git))"
    else
        missing "git, which the Swift package manager fetches dependencies with"
        missing_required+=(git)
        packages+=(git)
    fi
}

check_compiler() {
    local compiler
    if compiler="$(find_compiler)"; then
        found "C compiler ($(command -v "$compiler"))"
    else
        missing "a C compiler"
        missing_required+=("C compiler")
        packages+=(gcc libc6-dev)
    fi
}

check_libzmq() {
    local version
    if ! version="$(libzmq_version)"; then
        missing "libzmq with its headers"
        missing_required+=(libzmq)
        packages+=(libzmq3-dev)
    elif ! at_least "$version" "$minimum_libzmq"; then
        missing "libzmq $minimum_libzmq or newer: version $version is installed, and has a known security defect"
        missing_required+=(libzmq)
        packages+=(libzmq3-dev)
    else
        found "libzmq $version"
    fi
}

check_python() {
    local candidate versions
    for candidate in "${DROVER_PYTHON:-}" "$venv/bin/python" python3; do
        if [[ -z "$candidate" ]] || pretends python || ! has "$candidate"; then
            continue
        fi
        if versions="$(python_modules "$candidate")"; then
            found "Python $(python_version "$candidate") ($(command -v "$candidate")) with $versions"
            return
        fi
    done
    if pretends python || ! has python3; then
        missing "Python 3 (optional)"
        packages+=(python3 python3-venv)
    elif pretends venv || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        missing "Python's venv module (optional)"
        packages+=(python3-venv)
    fi
    missing "pyzmq, msgpack and rpyc for Python (optional)"
    missing_optional+=("Python packages")
    wants_venv=yes
}

check_network() {
    local name
    local -a lacking=()
    for name in ip ss nft; do
        if pretends network || ! PATH="$PATH:/usr/sbin:/sbin" has "$name"; then lacking+=("$name"); fi
    done
    if ((${#lacking[@]} == 0)); then
        found "iproute2 and nftables"
        return
    fi
    missing "for tests with many hosts: $(join "${lacking[@]}") (optional)"
    missing_optional+=("iproute2 and nftables")
    packages+=(iproute2 nftables)
}

check_stress() {
    if ! pretends stress && has stress; then
        found "stress ($(command -v stress))"
    elif [[ "$with_stress" == yes ]]; then
        missing "stress (optional)"
        missing_optional+=(stress)
        packages+=(stress)
    fi
}

check_everything() {
    missing_required=()
    missing_optional=()
    packages=()
    wants_venv=no
    check_swift
    check_git
    check_compiler
    check_libzmq
    if [[ "$with_python" == yes ]]; then
        check_python
        check_network
    fi
    check_stress
}

# Installs `packages`, or says what to ask for. Fails only if the tries failed; the check afterwards decides.
install_packages() {
    if pretends apt || ! has apt-get; then
        warn "this is not Debian or Ubuntu (no apt-get). Install by your system's own means what these packages hold:"
        warn "    ${packages[*]}"
        return 1
    fi
    if ! is_root && ! can_sudo; then
        warn "installing needs root, and there is no sudo to ask. Please ask an administrator of this machine to run:"
        warn "    apt-get update && apt-get install -y ${packages[*]}"
        return 1
    fi
    as_root apt-get -q update || warn "apt-get update failed; trying with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${packages[@]}"
}

install_python_packages() {
    local skipped="the tests and benchmarks that need Python will be skipped"
    if [[ "$mode" != dry-run ]] && ! { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }; then
        warn "Python's venv can't be used; $skipped"
        return 0
    fi
    if [[ ! -x "$venv/bin/python" ]] && ! change python3 -m venv "$venv"; then
        warn "could not make $venv; $skipped"
        return 0
    fi
    if ! change "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"; then
        warn "could not install Python packages (is the package index reachable?); $skipped"
    fi
}

finish() {
    if ((${#missing_required[@]} > 0)); then
        say "not ready; missing: $(join "${missing_required[@]}")"
        exit 1
    fi
    if ((${#missing_optional[@]} > 0)); then
        say "ready, without: $(join "${missing_optional[@]}")"
    else
        say "ready"
    fi
    exit 0
}

join() {
    local first="$1"
    shift
    printf '%s' "$first" "${@/#/, }"
}

main() {
    while (($# > 0)); do
        case "$1" in
        --check) mode=check ;;
        --dry-run) mode=dry-run ;;
        --no-python) with_python=no ;;
        --with-stress) with_stress=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            printf '\nsetup: unknown option: %s\n' "$1" >&2
            exit 2
            ;;
        esac
        shift
    done
    trap '[[ -z "$scratch" ]] || rm -rf "$scratch"' EXIT

    check_everything
    if [[ "$mode" == check ]] || { ((${#packages[@]} == 0)) && [[ "$wants_venv" == no ]]; }; then
        finish
    fi
    ((${#packages[@]} == 0)) || install_packages || warn "not everything could be installed"
    [[ "$wants_venv" == no ]] || install_python_packages
    if [[ "$mode" == dry-run ]]; then
        say "dry run: nothing was changed"
        finish
    fi
    say "looking again"
    check_everything
    finish
}

main "$@"
