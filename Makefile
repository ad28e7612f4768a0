# Everything a developer runs. Each target makes or updates its own virtual environment first.
#
#   PYTHON=python3.12   the interpreter of a new environment (3.11 or later)
#   VENV=.venv          where the environment lives
#   DJANGO=6.1          the Django series in it
#   PG=16               the PostgreSQL major version of `make test` and `make demo`
#   PG_BIN=/some/bin    PostgreSQL binaries to use instead of those found for PG
#   ARGS="-k slot -x"   more arguments for pytest or the demo
#   JOBS=0              how many tests run at once (0: one after the other, as debuggers want it)
#   SECONDS=20          how long the demo runs (until Ctrl-C without it), or the soak

PYTHON ?= python3
VENV ?= .venv
DJANGO ?= 5.2
PG ?= 18
ARGS ?=
JOBS ?= 3
SECONDS ?=

export PG
ifdef PG_BIN
export PG_BIN
endif

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-django-$(DJANGO)

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint types docs check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## Run the shop: real traffic, every change shown as it arrives (SECONDS=20 ends by itself)
	@"$(BIN)/python" -m example_project.demo $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

test: $(STAMP) ## Run the tests on an embedded PostgreSQL (PG=16, DJANGO=6.1, ARGS="-k name")
	@"$(BIN)/python" -m pytest --numprocesses=$(JOBS) --maxschedchunk=1 $(ARGS)

soak: $(STAMP) ## Random writes, kills and faults for as long as told (SECONDS=600)
	@SOAK_SECONDS=$(or $(SECONDS),600) "$(BIN)/python" -m pytest tests/faults/soak.py $(ARGS)

lint: $(STAMP) ## Check style and format with ruff
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .

types: $(STAMP) ## Check types with mypy --strict
	@"$(BIN)/python" -m mypy

docs: $(STAMP) ## Build the documentation into .cache/site; a warning is an error
	@"$(BIN)/mkdocs" build --strict --site-dir .cache/site

check: lint types docs test ## Everything that CI runs here

clean: ## Remove environments, caches, builds and the demo's database
	rm -rf .venv* .cache .postgres .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "There is no '$(PYTHON)' here. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "django-walsignals needs Python 3.11 or later; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1)." \
	         "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments." \
	         "On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@rm -f "$(VENV)"/.installed-django-*
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[dev]' 'django~=$(DJANGO).0'
	@touch "$@"
