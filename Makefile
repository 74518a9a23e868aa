# Everything below builds its own `.venv` first, and again when the dependencies change. Nothing else is needed
# than Python 3.11 or newer. For PyTorch's small CPU build on Linux:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
PYTHON ?= python3
JOBS ?= 2
OUT ?= invertigo-report
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e

# Each test process keeps to one thread: two processes with a thread pool each fight over the same cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check docs bench clean

help:
	@echo 'make demo      audit bundled photographs, write $(OUT)/ (a few minutes)'
	@echo 'make test      the tests           make test-all  with the slow ones'
	@echo 'make check     lint, format, types make docs      build the documentation into site/'
	@echo 'make bench     the benchmarks      make clean     remove what was built, .venv included'

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/pip
	$(INSTALL) '.[demo]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(INSTALL) '.[demo,dev]'
	@touch $@ .venv/demo

demo: .venv/demo
	$(BIN)/invertigo audit demo --out $(OUT)
	@echo 'Open $(abspath $(OUT))/report.html in a browser.'

test: .venv/dev
	$(PYTEST)

test-all: .venv/dev
	$(PYTEST) -m ''

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'Open $(CURDIR)/site/index.html in a browser.'

bench: .venv/dev
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf .venv site dist build $(OUT)
