# Two commands do everything on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist loadfile
PIP := pip install --quiet --disable-pip-version-check

.PHONY: search test quick lint types check mutants test-min wheel install clean

search: $(VENV)/installed
	$(BIN)/gpnas search --budget 5m --imgsz 192 --max-flops 100M

test: lint types
	$(TESTS)

# What a developer runs before each commit: everything but the tests marked slow.
quick: lint types
	$(TESTS) -m "not slow"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

# Longer than a test should be: 200 random genotypes traced from their torch modules, and the tables of docs/.
check: $(VENV)/installed
	OMP_NUM_THREADS=1 GPNAS_TRACED_GENOTYPES=200 $(BIN)/pytest -n 2 tests/graph/test_traced_spaces.py
	$(BIN)/gpnas bench published
	$(BIN)/python benchmarks/elan_structures.py

# Do the tests notice a changed operator or constant? 100 mutants of what the project exists for.
mutants: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py gpnas/graph --seed 1
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py gpnas/paths --seed 1
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py gpnas/search --seed 1
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py evaluators/detector --seed 1

# The tests on the oldest versions that pyproject.toml admits (an environment of its own; torch 2.8 brings CUDA, some GB).
test-min: .venv-min/installed
	OMP_NUM_THREADS=1 .venv-min/bin/pytest -n 2 --dist loadfile

# A wheel, installed into a fresh environment and used from a folder that is not this one.
wheel:
	rm -rf build dist .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/$(PIP) build
	.venv-wheel/bin/python -m build --wheel --outdir dist .
	.venv-wheel/bin/$(PIP) -c constraints.txt torch==2.13.0
	.venv-wheel/bin/$(PIP) -c constraints.txt "$$(echo dist/gpnas-*.whl)[nni]"
	folder=$$(mktemp -d) && cd $$folder && $(CURDIR)/.venv-wheel/bin/gpnas search --budget 1trials --imgsz 64 --max-flops 8M --out run \
		&& $(CURDIR)/.venv-wheel/bin/gpnas analyze run/best.yaml > /dev/null && rm -r $$folder

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) -c constraints.txt torch==2.13.0
	$(BIN)/$(PIP) -c constraints.txt -e '.[nni,wandb,export,dev]'
	touch $@

.venv-min/installed: pyproject.toml constraints-min.txt
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/$(PIP) -c constraints-min.txt -e '.[nni,wandb,dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-min .venv-wheel build dist runs
