# Two commands do everything on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search test check install clean

search: $(VENV)/installed
	$(BIN)/gpnas search --budget 5m --imgsz 192 --max-flops 100M

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Longer than a test should be: 200 random genotypes traced from their torch modules, and the tables of docs/.
check: $(VENV)/installed
	OMP_NUM_THREADS=1 GPNAS_TRACED_GENOTYPES=200 $(BIN)/pytest -n 2 tests/test_trace.py
	$(BIN)/gpnas bench published
	$(BIN)/python benchmarks/elan_structures.py

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
