# Every target sets up its .venv from the lock file by itself.
STARTED := $(shell date +%s)
PYTHON ?= python3
JOBS ?= 1
BIN := .venv/bin

DOCS := .venv-docs/bin
MODELS := .venv-models/bin
TPU := .venv-tpu/bin

.PHONY: demo showcase paper sweep settings faults docs games certify family \
  judges models real scale endure report seams inputs bench bench-peers test \
  test-slow slurm audit lint format lock clean

demo: WORKDIR ?= out/demo
demo: .venv/ready
	$(BIN)/python -m figures.demo --started=$(STARTED) --workdir=$(WORKDIR)

# FLAGS=--methods=rlhf,self_play runs others; --variant=gpu takes more of all.
showcase: .venv/ready
	$(BIN)/python -m figures.showcase $(FLAGS)
	$(BIN)/python -m figures.showcase_picture

# FLAGS=--minutes=60 first trains for an hour, and goes on the next time.
paper: .venv/ready
	$(BIN)/python -m figures.paper $(FLAGS)

sweep: .venv/ready
	$(BIN)/python -m nashmd_jax.sweeps.run --config=$(CONFIG) --jobs=$(JOBS) \
	  $(if $(WORKDIR),--workdir=$(WORKDIR)) $(FLAGS)

settings: .venv/ready
	$(BIN)/python -m nashmd_jax.main --config=configs/docstrings.py \
	  --explain=all > docs/settings.md

faults: .venv/ready
	$(BIN)/python -m figures.faults

# As a site that opens from disk, out/site/index.html.
docs: .venv-docs/ready
	$(DOCS)/python -m figures.docs

games: .venv/ready
	$(BIN)/python -m figures.games

# FLAGS=--only=decode,step for some groups. What has no environment is skipped
# and said to be; `make bench-peers` sets all of them up.
bench: .venv/ready
	$(BIN)/python -m figures.bench $(FLAGS)

bench-peers: .venv-models/ready .venv-trl/ready .venv-tunix/ready

models: .venv-models/ready
	$(MODELS)/python -m figures.models

scale: .venv-tpu/ready
	$(TPU)/python -m figures.scale

# FLAGS=--only=intervals,cuts for some groups.
report: .venv/ready
	$(BIN)/python -m figures.report $(FLAGS)

# FLAGS=--only=plain,lora for some parts, which joins what others have found.
endure: .venv/ready
	$(BIN)/python -m figures.endure $(FLAGS)

real: .venv-models/ready .venv-tpu/ready
	-$(TPU)/python -m figures.real_kernels
	$(MODELS)/python -m figures.real

# Its adapters are held against peft and transformers.
seams: .venv-models/ready
	$(MODELS)/python -m figures.seams

# Cases of others are read beside the repository, or skipped: CASES=FOLDER.
inputs: CASES ?= ../shared/cases
inputs: .venv/ready
	$(BIN)/python -m figures.inputs --cases=$(CASES)

judges: .venv/ready
	$(BIN)/python -m figures.judges

certify: .venv/ready
	$(BIN)/python -m figures.certify

family: .venv/ready
	$(BIN)/python -m figures.family

test: .venv/ready
	$(BIN)/python -m pytest -n auto

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

# Needs root and Debian's slurm-wlm and munge; says so where they are absent.
slurm: .venv/ready
	$(BIN)/python -m pytest -m slurm -rs

# Known holes in what the lock files name. Not every index has pip-audit, nor
# every machine a way to the list of holes: then it says so, and fails.
audit:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet \
	  --disable-pip-version-check pip-audit || \
	  { echo "the package index has no pip-audit: nothing was audited"; exit 1; }
	@for lock in requirements*.lock; do echo $$lock; \
	  .venv-audit/bin/pip-audit --no-deps --disable-pip -r $$lock || exit 1; done

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: requirements.lock
.venv-docs/ready: requirements-docs.lock
.venv-models/ready: requirements-models.lock
.venv-tpu/ready: requirements-tpu.lock
.venv-trl/ready: requirements-trl.lock
.venv-tunix/ready: requirements-tunix.lock

%/ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	printf '%s\n' '# Exact versions of both lanes: Python 3.11, and 3.12 or newer.' \
	  '# Made by `make lock` from setup.py.' > requirements.lock.new
	$(BIN)/uv pip compile setup.py --extra test --universal --upgrade \
	  --python-version 3.11 --no-header --no-annotate -q >> requirements.lock.new
	mv requirements.lock.new requirements.lock
	printf '%s\n' '# Exact versions of `make models`: requirements.lock, torch and transformers.' \
	  '# Made by `make lock` from setup.py; CUDA comes with torch where it needs it.' \
	  > requirements-models.lock.new
	$(BIN)/uv pip compile setup.py --extra test --extra models --universal \
	  --constraint requirements.lock --python-version 3.11 --no-header \
	  --no-annotate -q | grep -Ev '^(nvidia|cuda|triton)' \
	  >> requirements-models.lock.new
	mv requirements-models.lock.new requirements-models.lock
	printf '%s\n' '# Exact versions of `make docs`: requirements.lock, mkdocs-material.' \
	  '# Made by `make lock` from setup.py.' > requirements-docs.lock.new
	$(BIN)/uv pip compile setup.py --extra test --extra docs --universal \
	  --constraint requirements.lock --python-version 3.11 --no-header \
	  --no-annotate -q >> requirements-docs.lock.new
	mv requirements-docs.lock.new requirements-docs.lock
	printf '%s\n' '# Exact versions of `make scale` and of TPU hosts: requirements.lock, libtpu, gcsfs.' \
	  '# Made by `make lock` from setup.py.' > requirements-tpu.lock.new
	$(BIN)/uv pip compile setup.py --extra test --extra tpu --extra gcs --universal \
	  --constraint requirements.lock --python-version 3.11 --no-header \
	  --no-annotate -q >> requirements-tpu.lock.new
	mv requirements-tpu.lock.new requirements-tpu.lock
	printf '%s\n' '# Exact versions of a peer in `make bench`: trl, with the torch of the other.' \
	  '# Made by `make lock` from setup.py; CUDA comes with torch where it needs it.' \
	  > requirements-trl.lock.new
	$(BIN)/uv pip compile setup.py --extra trl --universal \
	  --constraint requirements-models.lock --python-version 3.11 --no-header \
	  --no-annotate -q | grep -Ev '^(nvidia|cuda|triton)' \
	  >> requirements-trl.lock.new
	mv requirements-trl.lock.new requirements-trl.lock
	printf '%s\n' '# Exact versions of a peer in `make bench`: tunix, which wants its own.' \
	  '# Made by `make lock` from setup.py.' > requirements-tunix.lock.new
	$(BIN)/uv pip compile setup.py --extra tunix --universal \
	  --python-version 3.11 --no-header --no-annotate -q \
	  >> requirements-tunix.lock.new
	mv requirements-tunix.lock.new requirements-tunix.lock

clean:
	rm -rf .venv .venv-audit .venv-docs .venv-models .venv-tpu .venv-trl .venv-tunix out
