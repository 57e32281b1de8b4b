# Two commands: `make demo` shows what it does, `make test` checks all of it. Both make the
# environment where it is missing. PIP_ARGS is passed to pip, for another build of torch say.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

.PHONY: install demo test lowest lint types imports bench tables clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "whatwhere needs Python 3.11 to 3.13: make PYTHON=... test")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,parquet,download,onnx,hub]'
	touch $@

demo: install
	rm -rf demo-run
	$(BIN)/whatwhere demo --out demo-run

test: install lint types imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# The tests of the engine with the lowest versions that are allowed, in an environment of its own. Their warnings are not ours.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet $(PIP_ARGS) --constraint constraints-lowest.txt --editable '.[parquet,download,onnx,hub]' pytest hypothesis
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -o filterwarnings=default tests/nn tests/objectives tests/learner tests/train tests/export tests/device

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/pyright

imports: install
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/run.py

tables: install
	$(BIN)/python docs/tables.py

clean:
	rm -rf .venv .venv-lowest demo-run
