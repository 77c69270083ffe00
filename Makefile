# `make demo` and `make test` do all their own set-up; nothing else needs to be run first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCK   := requirements.lock

# What the tests start beside the node: servers, DICOM tools and validators, a browser.
DEBIAN := redis-server postgresql orthanc orthanc-dicomweb dcmtk dicom3tools pixelmed-apps chromium docker-compose

# One more than cores, four at most: a test that runs a node or a browser waits for it half the time.
WORKERS = $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))

# One script a question; those that need simulated studies are described in docs/simulation.md and docs/results.md.
BENCH := receive reading ledger worklist brain detect turnaround

.PHONY: help demo test lint bench debian lock clean
help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.runtime  ## Install, then run the main job once: a study in, SR and SEG out
	@$(BIN)/cmbnode demo

test:  ## Install everything, then check style and types and run all tests
	@$(MAKE) --no-print-directory -j2 $(VENV)/.develop debian  # each waits for the network or the disk
	@$(MAKE) --no-print-directory lint
	@echo "── tests"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 5

lint: $(VENV)/.develop  ## Check style and types
	@echo "── style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@echo "── types (mypy)"
	@$(BIN)/mypy

bench: $(VENV)/.develop debian  ## Run the benchmarks; each prints one table (a quarter of an hour)
	@for question in $(BENCH); do echo; echo "── $$question"; $(BIN)/python -m benchmarks.$$question || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cmb-node needs Python 3.11 or newer; name one with PYTHON=python3.11 make …" >&2; exit 1; }
	@echo "── virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "── installing cmb-node at the versions of $(LOCK) (torch and CUDA: several GB, a minute or two)"
	@$(PIP) install --quiet --constraint $(LOCK) --editable .
	@touch $@

$(VENV)/.develop: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "── installing cmb-node with its training and test parts at the versions of $(LOCK)"
	@$(PIP) install --quiet --constraint $(LOCK) --editable '.[training,test]'
	@touch $@ $(VENV)/.runtime

debian:
	@missing=$$(for p in $(DEBIAN); do dpkg-query -Wf '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "── Debian packages for the tests:" $$missing; \
	  if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else \
	    echo "run as root: apt-get install" $$missing >&2; exit 1; fi; \
	  $$sudo apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	fi

lock: $(VENV)/.develop  ## Write the versions now installed to requirements.lock
	@{ echo "# Versions the project is tested with (CPython 3.11, Linux). Used as pip constraints by the Makefile."; \
	   $(PIP) freeze --exclude-editable --exclude cmb-node; } > $(LOCK)

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
