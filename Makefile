# make demo    set up .venv, then edit the embedded model and show what happened
# make test    set up .venv, then run the tests
# make test-fast  a part of them that touches every room (tests/fast.txt), for daily work
# make fuzz    the property tests with many examples at random; what they find becomes an @example
# make check   everything that must hold before a change goes in; .ci/run calls it
# make format  let ruff put the code in shape
# make clean   remove .venv, caches and the demo's output

PYTHON ?= python3
# More words for pip, for example to take PyTorch without CUDA on a machine that has no GPU:
# make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=

# Idle worker threads sleep instead of spinning: many small matrices run faster so, above all on a busy machine.
export OMP_WAIT_POLICY = PASSIVE

BIN := .venv/bin

.PHONY: demo test test-fast fuzz check lint types reference format clean
.NOTPARALLEL:

demo: .venv/.installed
	$(BIN)/errata demo

test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile @tests/fast.txt

fuzz: .venv/.installed
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto --dist loadfile -m fuzz

check: lint types reference test

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/pyright

reference: .venv/.installed
	$(BIN)/python -m errata.cli.reference --check

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist errata-demo

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --editable ".[dev]"
	touch $@
