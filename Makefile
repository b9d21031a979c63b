# Two commands for a newcomer: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
FRAMES ?=
# One process per core, four at most; a file of tests stays together, for what it shares.
SPREAD ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install demo test check lint types layers fast clean

help:
	@echo "make demo                 scan simulated gold balls, watch masks arrive in Tiled, see report.png"
	@echo "make demo FRAMES=f.h5:/p  the same with your own frames"
	@echo "make test                 all tests"
	@echo "make check                ruff, pyright, import-linter, tests: what CI runs"

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (once; two minutes or so) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@# torch first and exactly pinned: a later, looser requirement would fetch a build with CUDA.
	@$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/ptychoseg demo $(if $(FRAMES),--frames "$(FRAMES)")

test: $(STAMP)
	@$(BIN)/python -m pytest $(SPREAD)

fast: $(STAMP)
	@$(BIN)/python -m pytest $(SPREAD) -m "not slow"

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(STAMP)
	@$(BIN)/lint-imports --no-cache

check: lint types layers test

clean:
	rm -rf $(VENV) demo-output evaluate-output
