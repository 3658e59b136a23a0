# SPDX-License-Identifier: Apache-2.0
#
# The door to everything: `make help` lists what is here.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The backtracer of a crashed test process holds its pipes open; our tests crash processes on purpose.
export SWIFT_BACKTRACE := enable=no

# The Python that tests, examples and benchmarks talk to.
export DROVER_PYTHON ?= $(abspath $(firstword $(wildcard .venv/bin/python) $(shell command -v python3)))

FOLDER ?= /usr/share/doc
FILTER ?=
ROWS ?=
RUNS ?= 5
SEEDS ?= 10000
FIRST ?=
SEED ?=
SECONDS ?= 60
FUZZ_FLAGS ?=
SANITIZE_FLAGS ?=

only = $(if $(FILTER),--filter '$(FILTER)')
formatted = $(wildcard Sources Tests examples) Package.swift
suppressions = $(abspath Tests/Sanitizers)

.PHONY: help
help: ## Print this list
	@echo "Usage: make TARGET [VARIABLE=VALUE ...]"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)$$/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	    printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Variables: FILTER (a test's name), FOLDER, ROWS, RUNS, SEEDS, FIRST, SEED, SECONDS, FUZZ_FLAGS, SANITIZE_FLAGS"

.PHONY: setup
setup: ## Install what is missing (libzmq and its headers; Python packages for some tests)
	@deploy/setup.sh

.PHONY: build
build: setup ## Build everything, for debugging
	swift build --build-tests

.PHONY: test
test: setup ## Run all tests, or those of FILTER
ifeq ($(FILTER),)
	swift build --build-tests
	swift test --disable-xctest --skip-build --filter '$(pure_tests)'
	@$(MAKE) -j4 --output-sync=target test-direct test-broken test-brokered test-hosts
	swift test --disable-xctest --skip-build --filter HostileRunTests
else
	swift test --disable-xctest $(only)
endif

# Tests that start threads run one after the other, for their limits of time. They wait most of it, so four processes do at
# once; but not beside the one that keeps all processors busy. Those of brokers are in two, of about the same length: what
# breaks links and processes, and the rest.
pure_tests := TidyTests|DroverCodecTests|DroverWireTests|DroverCoreTests|SimulationTests
direct_tests := DroverZMQTests|DroverTests
broken_tests := BrokerFaultTests|BrokerFloodTests|ClosedConnectionTests|KeptAnswerTests|LostEventTests|LostInvocationTests|NestedCallTests
brokered_tests := DroverBrokerTests
hosts_tests := NetworkTests
brokered_skips := --skip '$(broken_tests)|HostileRunTests|NetworkTests'

.PHONY: test-direct test-broken test-brokered test-hosts
test-direct test-broken test-brokered test-hosts: test-%:
	swift test --disable-xctest --skip-build --ignore-lock --no-parallel --filter '$($*_tests)' $($*_skips)

.PHONY: check
check: lint ## What a patch must pass besides the tests: lint, warnings, imports, house rules, deploy/, documentation
	swift build --build-tests --explicit-target-dependency-import-check error
	swift test --disable-xctest --skip-build --filter TidyTests
	@$(MAKE) check-deploy
	@$(MAKE) docs

.PHONY: check-deploy
check-deploy: ## Check the manifests, units and scripts of deploy/
	@deploy/check.sh

.PHONY: test-deploy
test-deploy: ## Start the systemd units in a booted container (needs root; makes a small Debian first)
	swift build
	@deploy/test-units.sh

.PHONY: format
format: ## Format all Swift files in place
	swift format --in-place --recursive $(formatted)

.PHONY: lint
lint: ## Report what `make format` would change, and what it can't
	swift format lint --strict --recursive $(formatted)

.PHONY: docs
docs: ## Build the API reference; any warning is an error
	swift package generate-documentation --target DroverRuntime --target Drover --warnings-as-errors

.PHONY: demo
demo: ## Hash the files of FOLDER in several worker processes at once
	@deploy/setup.sh --no-python
	swift build -c release --product offload
	swift run -c release --skip-build offload '$(FOLDER)'

.PHONY: demo-pool
demo-pool: ## The same through a broker with four workers; a worker and the broker are killed on the way
	@deploy/setup.sh --no-python
	swift build -c release --product offload
	swift run -c release --skip-build offload --pool '$(FOLDER)'

.PHONY: examples
examples: ## Build the examples and run the check that each one brings
	swift build
	@set -e; count=0; bin="$$(swift build --show-bin-path)"; \
	for smoke in $(wildcard examples/smoke.sh examples/*/smoke.sh); do \
	    echo "== $$smoke"; DROVER_BIN="$$bin" bash "$$smoke" </dev/null; count=$$((count + 1)); \
	done; echo "examples: $$count checked"

.PHONY: bench
bench: setup ## Measure beside plain libzmq, RPyC and other job systems: ROWS="..." for some rows, RUNS=5 runs each
	@deploy/setup-bench.sh
	swift build -c release --product drover
	swift build -c release --product Benchmarks
	swift build -c release --product PlainZMQ
	ROWS='$(ROWS)' RUNS='$(RUNS)' "$$(swift build -c release --show-bin-path)/Benchmarks"

.PHONY: simulate
simulate: ## Run the simulation with SEEDS seeds from FIRST on, or replay SEED
	swift build -c release --product Simulate
	DROVER_SIM_SEEDS='$(SEEDS)' $(if $(FIRST),DROVER_SIM_FIRST_SEED='$(FIRST)') $(if $(SEED),DROVER_SIM_SEED='$(SEED)') \
	    "$$(swift build -c release --show-bin-path)/Simulate"

fuzzers := FuzzCodec FuzzWire
fuzz_build := DROVER_FUZZ=1 swift build --scratch-path .build-fuzz

.PHONY: build-fuzz
build-fuzz:
	@set -e; for fuzzer in $(fuzzers); do \
	    $(fuzz_build) --sanitize fuzzer -Xswiftc -parse-as-library --product $$fuzzer; \
	done

.PHONY: fuzz
fuzz: build-fuzz ## Fuzz the codec and the wire format for SECONDS each
	@set -e; for fuzzer in $(fuzzers); do \
	    echo "== $$fuzzer, $(SECONDS) s"; \
	    mkdir -p .build-fuzz/corpus/$$fuzzer; \
	    DROVER_FUZZ=1 "$$($(fuzz_build) --show-bin-path)/$$fuzzer" \
	        -max_total_time=$(SECONDS) -timeout=10 -print_final_stats=1 -artifact_prefix=.build-fuzz/ $(FUZZ_FLAGS) \
	        .build-fuzz/corpus/$$fuzzer \
	        $$(if [ -d Tests/Fuzz/corpus/$$fuzzer ]; then echo Tests/Fuzz/corpus/$$fuzzer; else echo Tests/Fuzz/corpus; fi); \
	done

.PHONY: sanitize
sanitize: test-thread test-address ## Run the tests under ThreadSanitizer, then under AddressSanitizer

# What both have in common: only what tests need is built, and tests that are long choose a smaller size. Reports go to
# files, because those of the processes that tests start must count as well; the faults that they cause on purpose are no
# finding (handle_segv). Many hosts find what one host doesn't, but nothing in memory.
sanitized_pure_tests := $(patsubst TidyTests|%,%,$(pure_tests))
# Many short processes of one thread each.
sanitized_skips := $(brokered_skips) --skip 'ToolTests/(wrapping|times|numbers|mistyped|keysAtOnce|hammered|closedPort|problems)'

# Runs the tests: $(1) is the folder, $(2) says how to build, $(3) and $(4) name and set the options, $(5) are the pure
# tests, if any. Those with threads run in processes of their own, as in `make test`.
define run_sanitized
	@mkdir -p $(1)/reports && rm -f $(1)/reports/* $(1)/reports.*
	@export DROVER_SANITIZED=1 DROVER_SIM_SEEDS="$${DROVER_SIM_SEEDS:-20}" \
	    DROVER_EVENT_COUNT="$${DROVER_EVENT_COUNT:-40000}" \
	    $(3)="$(4) log_path=$(abspath $(1))/reports/report"; \
	status=0; shares=; \
	run() { echo "swift test $$*"; swift test $(2) --ignore-lock --skip-build "$$@" $(SANITIZE_FLAGS); }; \
	$(if $(FILTER),run --no-parallel $(only) || status=$$?;,\
	    share() { name=$$1; shift; run "$$@" >$(1)/reports.$$name.txt 2>&1; }; \
	    $(if $(5),share pure --filter '$(5)' & shares="$$shares $$!";) \
	    share direct --no-parallel --filter '$(direct_tests)' & shares="$$shares $$!"; \
	    share broken --no-parallel --filter '$(broken_tests)' & shares="$$shares $$!"; \
	    share brokered --no-parallel --filter '$(brokered_tests)' $(sanitized_skips) & shares="$$shares $$!"; \
	    for share in $$shares; do wait $$share || status=$$?; done; cat $(1)/reports.*.txt;) \
	for report in $(1)/reports/*; do if [ -e "$$report" ]; then cat "$$report"; status=1; fi; done; \
	exit $$status
endef

thread_flags := --disable-xctest --scratch-path .build-tsan --sanitize thread -Xlinker $(abspath .build-tsan/swift_mutex.o)

.PHONY: build-thread
build-thread:
	@mkdir -p .build-tsan
	clang -O1 -g -Wall -Wextra -Werror -c Tests/Sanitizers/swift_mutex.c -o .build-tsan/swift_mutex.o
	swift build $(thread_flags) --product droverPackageTests

.PHONY: test-thread
test-thread: setup build-thread ## Run the tests that have threads under ThreadSanitizer
	$(call run_sanitized,.build-tsan,$(thread_flags),TSAN_OPTIONS,history_size=4 halt_on_error=0 handle_segv=0)

address_flags := --disable-xctest --scratch-path .build-asan --sanitize address

.PHONY: build-address
build-address:
	swift build $(address_flags) --product droverPackageTests

.PHONY: test-address
test-address: export LSAN_OPTIONS = suppressions=$(suppressions)/leak.supp print_suppressions=0
test-address: setup build-address ## Run the tests under AddressSanitizer, leaks included
	$(call run_sanitized,.build-asan,$(address_flags),ASAN_OPTIONS,detect_leaks=1 quarantine_size_mb=64 handle_segv=0,$(sanitized_pure_tests))

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf .build .build-tsan .build-asan .build-fuzz
