# Two commands: `make demo` runs the main job, `make test` passes the tests. Both set up what they
# need on a fresh Debian with a Rust toolchain.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/retake
# One target folder for demo, tests and CI: DataFusion compiles once.
export CARGO_TARGET_DIR ?= $(CACHE)/target

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.PHONY: build
build: ## build the binary (the first time compiles DataFusion: a quarter to half an hour on two cores)
	@scripts/setup build
	@[ -x "$(CARGO_TARGET_DIR)/debug/retake" ] || echo "First build: compiles DataFusion, a quarter to half an hour on two cores. cargo shows what it is at."
	cargo build --locked

.PHONY: demo
demo: build ## the main job: record, break down, replay, diff, report
	"$(CARGO_TARGET_DIR)/debug/retake" demo

.PHONY: lint
lint: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: test
test: ## everything CI checks, with a real PostgreSQL + pgvector, and a real MiniLM
	@scripts/setup test
	$(MAKE) --no-print-directory lint
	source "$$(scripts/setup env)" && cargo test --locked --workspace
	cargo test --locked --manifest-path recorder/checkers/Cargo.toml
	cargo test --locked --manifest-path examples/axum/Cargo.toml
	@if [ "$$(printf '1.95\n%s\n' "$$(rustc --version | cut -d' ' -f2)" | sort -V | head -n1)" = 1.95 ]; then \
		echo cargo test --locked --manifest-path tests/rig/Cargo.toml; \
		cargo test --locked --manifest-path tests/rig/Cargo.toml; \
	else echo "skipped: tests/rig, rig 0.44 needs Rust 1.95"; fi

.PHONY: test-s3
test-s3: ## the cloud backends (a second HTTP stack, so a build of its own) against a local S3 server
	@scripts/setup test
	source "$$(scripts/setup env)" && cargo test --locked -p retake-recorder --features cloud --test s3

.PHONY: docs
docs: ## write the generated pages of docs/ anew, and all of it as pages into book/
	UPDATE_DOCS=1 UPDATE_GOLDEN=1 cargo test --locked --workspace --test architecture
	scripts/book

.PHONY: install
install: ## install an optimised binary into ~/.cargo/bin
	@scripts/setup build
	cargo install --locked --path .

ROUNDS ?= $(if $(QUICK),2,5)
.PHONY: bench-recorder
bench-recorder: ## the recorder beside its peers, interleaved: ROUNDS=, QUICK=1, SECTIONS="hot e2e"
	@scripts/setup build
	cargo build --locked --release --manifest-path bench/recorder/Cargo.toml
	"$(CARGO_TARGET_DIR)/release/recorder-bench" --rounds $(ROUNDS) $(if $(QUICK),--quick) $(SECTIONS)

.PHONY: bench-otlp
bench-otlp: ## receivers of OTLP beside each other: ROUNDS=, QUICK=1, RECEIVERS="retake,phoenix"; RETAKE_BIN= for a binary
	RETAKE_BIN="$${RETAKE_BIN:-$(CARGO_TARGET_DIR)/release/retake}" python3 bench/otlp/bench.py \
		--rounds $(ROUNDS) $(if $(QUICK),--secs 4) $(if $(RECEIVERS),--only "$(RECEIVERS)")

COMMA := ,
SPANS ?= 1e6$(if $(QUICK),,$(COMMA)1e7)
.PHONY: bench-analyzer
bench-analyzer: ## SQL beside DuckDB, polars and ClickHouse on the same files: ROUNDS=, QUICK=1, SPANS=1e6,1e7
	@scripts/setup build
	cargo build --locked --release --workspace --bin retake
	cargo build --locked --release --manifest-path bench/analyzer/Cargo.toml
	RETAKE_BIN="$(CARGO_TARGET_DIR)/release/retake" SPAN_STORE_BIN="$(CARGO_TARGET_DIR)/release/span-store" \
		python3 bench/analyzer/bench.py --rounds $(ROUNDS) --spans $(SPANS)

.PHONY: bench-replay
bench-replay: ## fire error beside tokio's timers, a stall in either loop, token pacing, virtual time: ROUNDS=, QUICK=1, ONLY="fire,tokens"; RETAKE_DATA= for traces
	@scripts/setup build
	cargo build --locked --release --manifest-path bench/replay/Cargo.toml
	"$(CARGO_TARGET_DIR)/release/replay-bench" --rounds $(ROUNDS) $(if $(QUICK),--secs 1) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-pipeline
bench-pipeline: ## the built-in pipeline beside LlamaIndex: ROUNDS=, ONLY="split,query"; RETAKE_TEST_PG_BIN for pgvector
	@scripts/setup build
	cargo build --locked --release --manifest-path bench/pipeline/Cargo.toml
	PIPELINE_BENCH_BIN="$(CARGO_TARGET_DIR)/release/pipeline-bench" \
		python3 bench/pipeline/bench.py --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY))

SECS ?= 45
.PHONY: fuzz
fuzz: ## arbitrary bytes into whatever reads bytes: SECS= per target, TARGET="frame body" for some
	@scripts/setup build
	scripts/fuzz $(SECS) $(TARGET)

.PHONY: asan
asan: ## the recorder's unit tests under AddressSanitizer
	@scripts/setup build
	scripts/asan
