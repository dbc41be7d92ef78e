# Each target makes what it needs; on a fresh Debian with `make` and `python3-venv` nothing else has to be there.

PYTHON ?= python3
V := .venv/bin

FAULTS = $(if $(SEED),--seed $(SEED)) $(if $(ENGINES),--engines $(ENGINES)) $(if $(STORE),--stores $(STORE))

.PHONY: run test test-fast lint bench bench-peers faults conformance fresh mutants servers
.DEFAULT_GOAL := run

run: .venv/ready                     ## the main job: one task, end to end, on a real PostgreSQL
	@$(V)/sojourn demo

test: servers lint                   ## everything: lint, types, import order, every test on real servers
	@PYTHONPATH=tests $(V)/python -m house.parts

test-fast: .venv/ready               ## what needs no server and starts no process
	$(V)/pytest tests/unit tests/laws tests/house -q

lint: .venv/ready
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy ca attestor broker tests examples
	$(V)/lint-imports

bench: servers                       ## every hot path beside its raw limit; JSON into build/bench.json
	$(V)/python -m tests.bench

bench-peers: servers .venv/peers     ## PostgreSQL users and their ends beside a real OpenBao, in one run
	$(V)/python -m tests.bench --only peers --json build/bench-peers.json

faults: servers                      ## N=1000 [SEED=…] [ENGINES=postgres,…] [STORE=sqlite,…]: random kills, on record
	@PYTHONPATH=tests:. $(V)/python -m faults.kills --kills $(or $(N),1000) $(FAULTS)

conformance: .venv/foreign           ## DIR=<checkout of py-spiffe>: its own integration tests against our socket
	@PYTHONPATH=tests $(V)/python -m conformance.py_spiffe $(DIR)

fresh:                               ## the README's two commands in a minimal Debian, and nothing else
	tests/house/fresh.sh

mutants: .venv/mutants               ## what decides and what ends with one thing wrong at a time: nobody new survives (WRITE=1: shrink the list)
	@PYTHONPATH=tests $(V)/python -m mutants.judge $(if $(WRITE),--write)

servers: .venv/ready                 ## what tests drive: Debian packages (no service is ever started by apt), wheels
	@tests/servers/install.sh
	@$(MAKE) --no-print-directory .venv/foreign
	@PYTHONPATH=tests $(V)/python -m servers.oauth

.venv/foreign: tests/servers/requirements.lock .venv/ready
	$(V)/pip install --quiet --no-compile --require-hashes -r tests/servers/requirements.lock
	@touch $@

.venv/mutants: tests/mutants/requirements.lock .venv/ready
	$(V)/pip install --quiet --require-hashes -r tests/mutants/requirements.lock
	@touch $@

.venv/peers: tests/bench/requirements.lock .venv/ready
	$(V)/pip install --quiet --require-hashes -r tests/bench/requirements.lock
	@touch $@

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(V)/pip install --quiet --require-hashes -r requirements.lock
	$(V)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
