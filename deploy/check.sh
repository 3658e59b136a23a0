#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what is in deploy/: Kubernetes manifests against the published schemas, units by systemd's own tools, shell
# scripts by bash. A tool that can't be had is named; with CI=true that is a failure for the first, which pip installs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly venv=".build/deploy-venv"
# The oldest version of Kubernetes that somebody may still run, and the newest that is known.
readonly versions=(1.29 1.32)
# The exposure, out of 100, that `systemd-analyze security` may see in a unit.
readonly threshold=20
failed=no
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

say() { printf 'check-deploy: %s\n' "$*"; }
fail() {
    say "FAILED: $*" >&2
    failed=yes
}

check_scripts() {
    local script
    for script in deploy/*.sh deploy/slurm/*.sh; do
        bash -n "$script" || fail "$script"
    done
    say "shell scripts: parsed"
}

has_validator() { [[ -x "$venv/bin/kubernetes-validate" ]] && "$venv/bin/kubernetes-validate" --help >/dev/null 2>&1; }

check_manifests() {
    if ! has_validator; then
        mkdir -p .build
        python3 -m venv "$venv" \
            && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r deploy/check-requirements.txt \
            || true
    fi
    if ! has_validator; then
        if [[ "${CI:-}" == true ]]; then
            fail "kubernetes-validate can't be installed"
        else
            say "manifests: not checked, kubernetes-validate can't be installed (python3-venv? the package index?)"
        fi
        return
    fi
    "$venv/bin/python" deploy/kubernetes/check.py "${versions[@]}" || fail "manifests"
    # What kustomize makes of them, where it is there.
    if command -v kubectl >/dev/null && kubectl kustomize --help >/dev/null 2>&1; then
        local overlay version
        for overlay in base autoscaled; do
            kubectl kustomize "deploy/kubernetes/$overlay" >"$scratch/$overlay.yaml" || fail "kustomize $overlay"
            for version in "${versions[@]}"; do
                "$venv/bin/kubernetes-validate" --quiet --strict --kubernetes-version "$version" \
                    "$scratch/$overlay.yaml" || fail "kustomized $overlay, Kubernetes $version"
            done
        done
        [[ "$failed" == yes ]] || say "kustomize: base and autoscaled are valid"
    else
        say "kustomize: not here, only the single manifests were checked"
    fi
}

check_units() {
    if ! command -v systemd-analyze >/dev/null; then
        say "units: not checked, there is no systemd-analyze"
        return
    fi
    local unit name
    for unit in deploy/systemd/*.service; do
        name="$(basename "$unit")"
        # A template is checked as an instance. The program needn't be installed here.
        sed 's|/usr/local/bin/drover |/bin/true |' "$unit" >"$scratch/${name/@./@example.}"
    done
    # What it ignores it only mentions; other units of the machine are no concern of ours.
    systemd-analyze verify "$scratch"/*.service >"$scratch/report" 2>&1 || fail "systemd-analyze verify"
    if grep -F -e "$scratch/" -e drover- "$scratch/report"; then fail "systemd-analyze verify"; fi
    for unit in "$scratch"/*.service; do
        systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$unit" >"$scratch/report" 2>&1 \
            || { tail -n 1 "$scratch/report"; fail "$(basename "$unit") is more exposed than $threshold of 100"; }
    done
    [[ "$failed" == yes ]] || say "units: verified, exposure below $threshold of 100"
}

check_scripts
check_units
check_manifests
if [[ "$failed" == yes ]]; then exit 1; fi
say "ready"
