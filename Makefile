# Each target sets up .venv by itself; PYTHON chooses the interpreter for it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo grow-demo test test-faults recipes check format clean

help:
	@echo "make demo       the whole way on a real small model and real text (about 18 minutes on 2 cores)"
	@echo "make grow-demo  growth for real: a small GPT-2, trained here, against random starts (about as long)"
	@echo "make test       formatting, lint, types and tests: all that a contributor needs"
	@echo "make test-faults  every fault of tests/faults, long ones too (about half an hour)"
	@echo "make recipes    render the shipped recipes and their README from tools/recipes anew"
	@echo "make check      formatting, lint and types only"
	@echo "make format     rewrite the sources as ruff wants them"
	@echo "make clean      remove .venv and what the demo wrote"

# pinned: without constraints pip backtracks for ten minutes
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.installed
	$(BIN)/inheritune demo

grow-demo: .venv/.installed
	$(BIN)/inheritune grow-demo

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: .venv/.installed
	FUZZ_INPUTS=100000 $(BIN)/python -m pytest tests/faults -m ""

recipes: .venv/.installed
	PYTHONPATH=tools $(BIN)/python -m recipes.render recipes

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo
