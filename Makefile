# Two commands on a fresh machine with Python 3.11-3.13 and make:
#   make demo    the main job on simulated patients, from recordings to a report
#   make test    the test suite (no network, no GPU, no data needed)
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

.PHONY: demo install install-test test test-slow test-data lint types docs-check clean

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"biossl needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}; name another: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e '.[test]'
	@touch $@

demo: install
	$(BIN)/biossl demo --out runs/demo --overwrite

test: install-test
	$(PYTEST) -m 'not slow and not data and not gpu'

test-slow: install-test
	$(PYTEST) -m 'slow and not data and not gpu'

# real recordings: make test-data BIOSSL_DATA=path/to/recordings
test-data: install-test
	$(PYTEST) -m 'data and not gpu'

lint: install-test
	$(BIN)/ruff check biossl tests
	$(BIN)/ruff format --check biossl tests

types: install-test
	$(BIN)/mypy

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
