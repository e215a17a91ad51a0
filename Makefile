# The front door. Every target makes the environment that it needs in .venv, once, behind a stamp in .make/.
# All paths are relative: a checkout may lie anywhere, in a folder with spaces too. Plain enough for GNU Make 3.81.

PYTHON ?= python3
# Most tests wait for processes: more of them than there are processors.
WORKERS ?= 4

install = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt

# What somebody's shell or git hook set for other programs. Without compiled files every process would compile us anew.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PARALLEL_AGENTS_STORE GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export PIP_USER := 0

.SUFFIXES:
.NOTPARALLEL: # Two installs at once would spoil one environment; pytest and the program do their own work in parallel.
.PHONY: help demo test test-all lint bench clean need-git FORCE

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: need-git .make/demo ## run a plan of seven tasks in a repository of its own, then read back what happened
	@PATH="$$PWD/.venv/bin:$$PATH" examples/demo.sh

test: need-git .make/test ## the tests, but for those that take minutes
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: need-git .make/test-all ## all tests, on more random examples and with the real claude command (380 MB, once)
	TEST_ALL=1 .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

lint: .make/lint ## ruff and mypy
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m mypy

bench: .make/bench ## measure: each line is a ratio to a baseline of the same run
	.venv/bin/python -m bench

clean: ## remove all that make has made
	[ ! -e .venv/made-by-make ] || rm -rf .venv
	rm -rf .make build dist demo-output .hypothesis .mypy_cache .ruff_cache .pytest_cache
	find parallel_agents tests bench examples -name __pycache__ -prune -exec rm -rf {} +

need-git:
	@command -v git >/dev/null || { \
	  echo "git is missing: install it (Debian, Ubuntu: apt install git; macOS: xcode-select --install)" >&2; exit 1; }

.make/venv: FORCE
	@.ci/environment "$(PYTHON)"

.make/demo: extras =
.make/test: extras = [test]
.make/test-all: extras = [test,claude]
.make/lint: extras = [lint]
.make/bench: extras = [bench]

# hatchling comes first and is not fetched apart for the build, so that it is held by the constraints like all else.
.make/demo .make/test .make/test-all .make/lint .make/bench: .make/venv pyproject.toml constraints.txt
	@touch .make/unfinished
	@$(install) hatchling
	@$(install) --no-build-isolation --editable '.$(extras)'
	@rm .make/unfinished
	@touch $@
