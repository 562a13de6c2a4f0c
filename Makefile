# make demo    new music with the bundled models, in under 2 minutes; leaves demo-output/report.html
# make demo-train   the whole path, training included, on synthesized music, in under 10 minutes; demo-train-output/
# make test    lint and import contracts, then types and the tests side by side
# make soak    what docs/reliability.md describes, at full size: an hour
# make mutants the code is changed in 200 places, one at a time; which tests notice? An hour
# make lint    the same without the tests
# make lock    makes requirements/ from constraints.txt (needs uv)
# make clean   removes what make installed and made: .venv, the demos' folders and caches
#
# PYTHON=python3.12 chooses an interpreter; VENV=folder where it installs; DEMO_OPTIONS="--recordings folder"
# is handed to the demo, MUTANTS_OPTIONS="--seed 1" to scripts/mutants.py. On Linux without an NVIDIA driver torch comes
# from the index of its CPU builds, unless pip is configured to use an index of its own. TORCH_INDEX=URL takes it from
# there; TORCH_INDEX= from pip's index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/installed
ALL_INSTALLED := $(VENV)/all-installed

CPU_INDEX := https://download.pytorch.org/whl/cpu
DRIVER_FILES := /proc/driver/nvidia/version /dev/nvidia0 /usr/lib/wsl/lib/nvidia-smi
DRIVER := $(wildcard $(DRIVER_FILES))$(shell command -v nvidia-smi)
TORCH_INDEX ?= $(if $(DRIVER)$(filter-out Linux,$(shell uname)),,$(CPU_INDEX))
# An index that pip is configured with counts for more than the default of TORCH_INDEX.
HAS_INDEX := $(if $(filter file,$(origin TORCH_INDEX)),$(PIP) config list | grep -qE '\.(index-url|no-index)=',false)

# Where a fault costs music.
MUTATED := $(sort $(wildcard $(addsuffix .py, \
  $(addprefix rave/, audio/* files/* jobs/* latents/* streaming/* evaluation/folders evaluation/audio_statistics \
    codec* dataset latent_dataset levels noise trainer training training_audio) \
  $(addprefix diffwave/, conditions/* sampling/* evaluation/* streaming/sampler* clips conditioner dataset denoiser inference \
    objective schedule standardizer training) \
  scripts/apply_patches scripts/make_patches)))

.PHONY: demo demo-train test soak mutants lint style types tests lock clean

demo: $(INSTALLED)
	@$(BIN)/python scripts/demo.py $(DEMO_OPTIONS)

demo-train: $(INSTALLED)
	@$(BIN)/python scripts/demo_train.py $(DEMO_OPTIONS)

# mypy has one thread, so the tests do not wait for it.
test: style
	@$(MAKE) --no-print-directory --jobs 2 types tests

# What Python compiles stays on disk, also where the environment says otherwise: to compile the tests takes a core of
# each worker several seconds.
tests: $(ALL_INSTALLED)
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

soak: $(ALL_INSTALLED)
	$(BIN)/pytest --soak --capture no tests/test_kill.py tests/test_hostile.py tests/test_fuzz.py tests/test_soak.py \
	  tests/test_million_latents.py

mutants: $(ALL_INSTALLED)
	nice $(BIN)/python scripts/mutants.py $(MUTANTS_OPTIONS) $(MUTATED)

lint: style types

style: $(ALL_INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(ALL_INSTALLED)
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt requirements/core.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "'$(PYTHON)' is not Python 3.10 or newer. Install one, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --require-hashes --requirement requirements/core.txt
	@test -z "$(TORCH_INDEX)" || $(HAS_INDEX) || \
	  $(PIP) install --no-deps --retries 1 --timeout 15 --constraint constraints.txt --index-url "$(TORCH_INDEX)" torch || \
	  echo "'$(TORCH_INDEX)' has no torch for this machine, or cannot be reached; torch comes from pip's own index," \
	    "on Linux with gigabytes of CUDA. To choose another: make TORCH_INDEX=URL" >&2
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(ALL_INSTALLED): $(INSTALLED) requirements/all.txt
	$(PIP) install --no-deps --require-hashes --requirement requirements/all.txt
	@touch $@

# The packages of constraints.txt with their hashes. torch is left out, since each index has builds of its own, and so
# are the packages of CUDA, which it brings.
COMPILE = echo 'setuptools>=77' | uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
  --no-annotate --no-header --constraint constraints.txt --no-emit-package torch pyproject.toml -

lock:
	$(COMPILE) --output-file requirements/core.txt
	$(COMPILE) --all-extras --output-file requirements/all.txt

clean:
	rm -rf $(VENV) .venv-system demo-output demo-train-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
