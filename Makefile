# make demo    new music with the models in the box, in under 2 minutes; leaves demo-output/report.html
# make demo-train   the whole path, training included, on synthesized music, in under 10 minutes; demo-train-output/
# make test    lint, types, import contracts, then the tests
# make soak    what docs/reliability.md tells of, at full size: an hour
# make lint    the same without the tests
# make clean   removes what make installed and made: .venv, the demos' folders and caches
#
# PYTHON=python3.12 chooses an interpreter; DEMO_OPTIONS="--recordings folder" is handed to the demo.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo demo-train test soak lint clean

demo: $(INSTALLED)
	@$(BIN)/python scripts/demo.py $(DEMO_OPTIONS)

demo-train: $(INSTALLED)
	@$(BIN)/python scripts/demo_train.py $(DEMO_OPTIONS)

test: lint
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

soak: $(INSTALLED)
	$(BIN)/pytest --soak --capture no tests/test_kill.py tests/test_hostile.py tests/test_fuzz.py tests/test_soak.py \
	  tests/test_million_latents.py

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "'$(PYTHON)' is not Python 3.10 or newer. Install one, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,onnx,app,fast,ray]'
	@touch $@

clean:
	rm -rf $(VENV) demo-output demo-train-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
