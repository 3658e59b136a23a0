#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts the systemd units in a booted container, as docs/operating/run-a-broker.md says: start, keys, a worker, a crash, a
# stop. `systemd-analyze` reads units; only a start shows whether a program can live in them. Needs root, and a kernel that
# lets systemd-nspawn boot; installs systemd-container and debootstrap by apt-get. The container has no network but its own
# loopback, and ends with this script.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
base="$PWD/.build/deploy-root"
root="$(mktemp -d /var/tmp/drover-units.XXXXXX)"
readonly base root
readonly suite="${DROVER_DEPLOY_SUITE:-bookworm}"
container=""
init=""

say() { printf 'test-units: %s\n' "$*"; }
skip() {
    say "NOT RUN: $*"
    exit 0
}
finish() {
    local status=$?
    if ((status != 0)) && [[ -n "$container" ]]; then
        inside journalctl --no-pager -n 60 -u drover-broker -u 'drover-worker@*' >&2 || true
    fi
    # Only the container that was started here, by its number: with its first process all others end.
    if [[ -n "$container" ]]; then
        kill -KILL ${init:+"$init"} 2>/dev/null || true
        wait "$container" 2>/dev/null || true
    fi
    rm -rf "$root" || { sleep 1; rm -rf "$root"; }
}

# What PID 1 of the container runs, by any of its namespaces.
inside() { nsenter --target "$init" --all -- "$@"; }

# until_true SECONDS WHAT COMMAND...: tries the command until it succeeds.
until_true() {
    local end=$((SECONDS + $1)) what="$2"
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            say "FAILED: $what" >&2
            "$@" >&2 || true
            return 1
        fi
        sleep 0.1
    done
    say "passed: $what"
}

check() {
    local what="$1"
    shift
    if "$@" >/dev/null; then say "passed: $what"; else say "FAILED: $what" >&2; return 1; fi
}

[[ "$(id -u)" -eq 0 ]] || skip "a container can't be booted without root"
if ! command -v systemd-nspawn >/dev/null || ! command -v debootstrap >/dev/null; then
    apt-get install -y --no-install-recommends systemd-container debootstrap >/dev/null 2>&1 \
        || skip "systemd-container and debootstrap can't be installed"
fi
trap finish EXIT

if [[ ! -e "$base/ready" ]]; then
    say "makes a small Debian in $base"
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libzmq5 "$suite" "$base/root" >"$base/log" 2>&1 \
        || { tail -n 20 "$base/log" >&2; skip "debootstrap can't make a Debian here"; }
    touch "$base/ready"
fi
cp -a "$base/root/." "$root"

# The programs are built for this machine; what they need of Swift is shown to the container.
bin="$(swift build --show-bin-path)"
runtime="$(dirname "$(ldd "$bin/drover" | awk '/libswiftCore/ { print $3 }')")"
install -m755 "$bin/drover" "$bin/fault-worker" "$root/usr/local/bin/"
# As the page says it.
install -Dm644 deploy/systemd/drover.sysusers.conf "$root/etc/sysusers.d/drover.conf"
install -Dm644 -t "$root/etc/systemd/system" deploy/systemd/drover-broker.service deploy/systemd/drover-worker@.service
install -Dm640 deploy/systemd/broker.env "$root/etc/drover/broker.env"
install -Dm640 deploy/systemd/worker.env "$root/etc/drover/workers/test.env"
sed -i 's|^DROVER_WORKER=.*|DROVER_WORKER=/usr/local/bin/fault-worker dial tcp://127.0.0.1:5570|' \
    "$root/etc/drover/workers/test.env"

systemd-nspawn --quiet --directory="$root" --boot --machine="drover-units-$$" --private-network --register=no --keep-unit \
    --bind-ro="$runtime" >"$root.log" 2>&1 </dev/null &
container=$!
for _ in $(seq 100); do
    init="$(pgrep -P "$container" || true)"
    [[ -n "$init" ]] && inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break
    kill -0 "$container" 2>/dev/null || { container=""; cat "$root.log"; rm -f "$root.log"; skip "systemd-nspawn can't boot here"; }
    sleep 0.2
done
rm -f "$root.log"
inside systemd-sysusers
inside systemctl daemon-reload

is_serving() { inside drover status --timeout 2; }
has_worker() { inside drover workers "$@" | grep -q ready; }
main_pid() { inside systemctl show --property=MainPID --value drover-broker; }
keyed=(--key /etc/drover/keys/root.key --server-key /etc/drover/keys/broker.key.pub)

check "the broker starts, and says so to systemd" inside systemctl enable --now drover-broker
check "drover status finds it" is_serving
check "the worker's unit starts" inside systemctl enable --now drover-worker@test
until_true 20 "its worker is ready" has_worker

former="$(main_pid)"
inside systemctl kill --signal=KILL --kill-who=main drover-broker
until_true 20 "a broker that was killed is started again" is_serving
[[ "$(main_pid)" != "$former" ]]
until_true 20 "its worker is back" has_worker
[[ "$(inside systemctl show --property=LimitCORE --value drover-broker)" == 0 ]] && say "passed: no dump is written"

inside systemctl stop drover-worker@test
inside install -d -m 750 -o root -g drover /etc/drover/keys
for name in broker root; do inside drover keys new "/etc/drover/keys/$name.key" >/dev/null; done
inside drover keys allow root /etc/drover/keys/root.key.pub --rights admin --allow-list /etc/drover/keys/allow
# The key as a secret is that an orchestrator mounts: root's, for a group to read.
inside chown root:drover /etc/drover/keys/broker.key
inside chmod 0440 /etc/drover/keys/broker.key
inside chown drover: /etc/drover/keys/allow
echo 'DROVER_BROKER_OPTIONS=--key /etc/drover/keys/broker.key --allow-list /etc/drover/keys/allow' >>"$root/etc/drover/broker.env"
check "the broker starts with keys" inside systemctl restart drover-broker
check "a key that is allowed is let in" inside drover status "${keyed[@]}"
if inside drover status --timeout 1 >/dev/null 2>&1; then
    say "FAILED: who has no key is let in" >&2
    exit 1
fi
say "passed: who has no key is not let in"

check "the broker stops when it is told to" inside systemctl stop drover-broker
[[ "$(inside systemctl show --property=ExecMainStatus --value drover-broker)" == 0 ]]
[[ "$(inside systemctl show --property=Result --value drover-broker)" == success ]]
say "passed: it drained, and left with status 0"
say "ready"
