# The front door. Every target makes the environment that it needs in .venv, once, behind a stamp in .make/.
# All paths are relative: a checkout may lie anywhere, in a folder with spaces too. Plain enough for GNU Make 3.81.

PYTHON ?= python3
WORKERS ?= 2

install = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt

# What somebody's shell or git hook set for other programs.
unexport PYTHONPATH PYTHONHOME PARALLEL_AGENTS_STORE GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export PIP_USER := 0

.SUFFIXES:
.NOTPARALLEL: # Two installs at once would spoil one environment; pytest and the program do their own work in parallel.
.PHONY: help demo test test-all lint bench clean need-git FORCE

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: need-git .make/demo ## run a plan of seven tasks in a repository of its own, then read back what happened
	@PATH="$$PWD/.venv/bin:$$PATH" examples/demo.sh

test: need-git .make/test ## the tests, but for those that take minutes
	.venv/bin/python -m pytest -n $(WORKERS) -m "not slow"

test-all: need-git .make/test ## all tests
	.venv/bin/python -m pytest -n $(WORKERS)

lint: .make/lint ## ruff and mypy
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m mypy

bench: .make/bench ## measure: each line is a ratio to a baseline of the same run
	.venv/bin/python -m bench

clean: ## remove all that make has made
	rm -rf .venv .make build dist demo-output .hypothesis .mypy_cache .ruff_cache .pytest_cache
	find parallel_agents tests bench examples -name __pycache__ -prune -exec rm -rf {} +

need-git:
	@command -v git >/dev/null || { \
	  echo "git is missing: install it (Debian, Ubuntu: apt install git; macOS: xcode-select --install)" >&2; exit 1; }

# An environment works where it was made, with the Python that made it; one whose install was cut short is made anew.
.make/venv: FORCE
	@[ "$$(cat $@ 2>/dev/null)" = "$$(pwd -P)" ] && [ ! -e .make/unfinished ] && .venv/bin/python -c 'import pip' 2>/dev/null || { \
	  command -v "$(PYTHON)" >/dev/null || { \
	    echo "$(PYTHON) is missing: install Python 3.11 or later (Debian, Ubuntu: apt install python3 python3-venv)," \
	      "or name one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is too old: install Python 3.11 or later, and name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: install its venv (Debian, Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; }; \
	  echo "making .venv, which takes a minute the first time" >&2; \
	  rm -rf .venv .make && mkdir .make && touch .make/unfinished && "$(PYTHON)" -m venv .venv && rm .make/unfinished && \
	  pwd -P > $@; }

.make/demo: extras =
.make/test: extras = [test]
.make/lint: extras = [lint]
.make/bench: extras = [bench]

# hatchling comes first and is not fetched apart for the build, so that it is held by the constraints like all else.
.make/demo .make/test .make/lint .make/bench: .make/venv pyproject.toml constraints.txt
	@touch .make/unfinished
	@$(install) hatchling
	@$(install) --no-build-isolation --editable '.$(extras)'
	@rm .make/unfinished
	@touch $@
