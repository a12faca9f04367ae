# Every target sets up .venv from the lock file by itself.
STARTED := $(shell date +%s)
PYTHON ?= python3
JOBS ?= 1
BIN := .venv/bin

.PHONY: demo sweep games bench test lint format lock clean

demo: WORKDIR ?= out/demo
demo: .venv/ready
	$(BIN)/python -m tests.figures.demo --started=$(STARTED) --workdir=$(WORKDIR)

sweep: .venv/ready
	$(BIN)/python -m nashmd_jax.sweep --config=$(CONFIG) --jobs=$(JOBS) \
	  $(if $(WORKDIR),--workdir=$(WORKDIR)) $(FLAGS)

games: .venv/ready
	$(BIN)/python -m tests.figures.games

bench: .venv/ready
	$(BIN)/python -m tests.figures.bench

test: .venv/ready
	$(BIN)/python -m pytest -n auto

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.lock
	touch $@

lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	printf '%s\n' '# Exact versions of both lanes: Python 3.11, and 3.12 or newer.' \
	  '# Made by `make lock` from setup.py.' > requirements.lock.new
	$(BIN)/uv pip compile setup.py --extra test --universal --upgrade \
	  --python-version 3.11 --no-header --no-annotate -q >> requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf .venv out
