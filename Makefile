# The services of the tests and the demo are private to this checkout: see tests/stack/stack.py.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STACK := tests/stack/stack.py

# The first interpreter that runs and is new enough: a name on the PATH can be a shim of a version that is not active.
ifndef PYTHON
PYTHON := $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$python; break; }; done)
endif
run_python = $(or $(PYTHON),$(error Python 3.11 or newer is needed; apt-get install python3 python3-venv, or make PYTHON=...))

# With it, every process of the tests would compile all modules for itself.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two goals can need the same .venv.
.NOTPARALLEL:
.PHONY: help env setup system up down status test unit check format demo load load-api load-file load-growth load-geocoding load-scaling bench crash-matrix promises docs contract faults compose-test soak hostile fuzz lock clean

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-14s %s\n' "$$name" "$$what"; done

# Hexadecimal, since they become part of URLs.
env: ## .env for docker compose, with passwords of its own; one that is there gets what it lacks
	@umask 077; test -e .env || fresh=yes; touch .env; test -z "$$(tail -c 1 .env)" || echo >> .env; \
	while IFS= read -r line; do \
		case $$line in \
			''|'#'*) test -z "$$fresh" || printf '%s\n' "$$line"; continue;; \
			*_PASSWORD=|*_SECRET_KEY=|*_TOKEN=|*_TOKENS=) there="^$$line."; secret=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n');; \
			*) there="^$${line%%=*}="; secret=;; \
		esac; \
		grep -q "$$there" .env || printf '%s\n' "$$line$$secret"; \
	done < .env.example >> .env

setup: system ## everything the other targets need: Debian packages, then .venv
	@$(MAKE) --no-print-directory --silent $(VENV)/.installed

system:
	@$(run_python) $(STACK) install

$(VENV)/.requirements: requirements-dev.txt
	$(run_python) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.requirements pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

up: system ## start PostgreSQL, RabbitMQ and an S3 store, and leave them running
	@$(run_python) $(STACK) up

down: ## stop them and forget what they held
	@$(run_python) $(STACK) down

status: ## which of them answer
	@$(run_python) $(STACK) status

test: setup ## every test, against real services; ARGS="-k name" for some
	@$(run_python) $(STACK) run $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

crash-matrix: setup ## kill a process at every point, in every way; writes the table in docs/reliability.md
	@CRASH_MATRIX=full $(run_python) $(STACK) run $(BIN)/python -m pytest tests/acceptance/test_crash_matrix.py $(ARGS)

faults: setup ## what takes too long for every run: brokers restarted, alarmed, a cluster's leader killed
	@$(run_python) $(STACK) run $(BIN)/python -m pytest -m faults --numprocesses 3 $(ARGS)

# Its networks and ports are those of a namespace that ends with it: nothing of them is seen on this machine.
compose-test: setup ## Dockerfile and compose.yaml run by a Docker daemon of its own, as root; the first time takes long
	@PYTHONPATH=tests/stack $(BIN)/python -m tests.containers.images
	@unshare --net sh -c 'ip link set lo up && exec $(BIN)/python -m pytest -m containers tests/containers $(ARGS)'

promises: $(VENV)/.installed ## which tests hold which promise; writes the table in docs/reliability.md
	@$(BIN)/python -m tests.promises

docs: $(VENV)/.installed ## commands, settings, messages, metrics, modules and tables as the code has them, and the map; writes them into docs/
	@$(BIN)/python -m tests.written

contract: setup ## what a database answers a dashboard; writes the examples in docs/dashboard-api-contract.md
	@$(run_python) $(STACK) run $(BIN)/python -m tests.contract

unit: $(VENV)/.installed ## the tests that need no service
	@$(BIN)/python -m pytest tests/unit $(ARGS)

check: $(VENV)/.installed ## lint, format, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=tests/stack $(BIN)/mypy --explicit-package-bases consumer publisher sql tests
	$(BIN)/lint-imports

format: $(VENV)/.installed ## put the code into the agreed form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: setup ## the whole way of a file, to watch; KEEP=1 leaves it running
	@$(BIN)/fleettickets demo $(if $(KEEP),--keep) $(ARGS)

load: setup ## events at the webhook receiver, as fast as it takes them; nothing may get lost
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.webhook $(ARGS)

load-api: setup ## readers and followers of the API beside ingest; nothing may get lost; writes into docs/performance.md
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.api $(ARGS)

load-file: setup ## one change file of a gigabyte in less than 200 MB of memory; takes long
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.big_file $(ARGS)

load-growth: setup ## a file after a million files costs what the first one did
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.growth $(ARGS)

load-geocoding: setup ## how well places are found, and what the gazetteer costs a file
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.geocoding $(ARGS)

load-scaling: setup ## one, two and four consumers on hosts of their own, as root; writes into docs/scaling.md
	@$(run_python) $(STACK) run $(BIN)/python -m tests.load.scaling $(ARGS)

bench: setup ## how fast it is beside plain scripts, in one table; ARGS="--only rows --rows 6000" for a quick look
	@$(run_python) $(STACK) run $(BIN)/python -m tests.bench.run $(ARGS)

soak: MINUTES ?= 60
hostile: MINUTES ?= 15

soak: setup ## MINUTES=60 of feed while every component is killed at random, then the oracle; SEED=n repeats one
	@PYTHONPATH=tests/stack $(BIN)/python -m tests.soak.run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

hostile: setup ## MINUTES=15 of hostile files, messages, clients and services beside good ones; SEED=n repeats one
	@PYTHONPATH=tests/stack $(BIN)/python -m tests.hostile.run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: FILES ?= 100000

fuzz: $(VENV)/.installed ## FILES=100000 change files of all habits in any mix, against who wrote them; SEED=n repeats
	@$(BIN)/python -m tests.fuzz.run --files $(FILES) $(if $(SEED),--seed $(SEED)) $(ARGS)

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock'

lock: $(VENV)/.requirements ## pin the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade --extra otel --output-file requirements.txt pyproject.toml
	$(LOCK) --upgrade --extra otel --extra dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	printf 'hatchling\n' | $(LOCK) --constraint requirements-dev.txt --output-file requirements-build.txt -
	$(LOCK) --upgrade --output-file tests/bench/requirements.txt tests/bench/requirements.in

clean: down ## also remove .venv and what the tools cached
	rm -rf $(VENV) .local .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
