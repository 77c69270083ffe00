# `make demo` and `make test` do all their own set-up; nothing else needs to be run first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCKS  := requirements.lock requirements-develop.lock

# What the tests start beside the node: servers, DICOM tools and validators, a browser.
DEBIAN := redis-server postgresql orthanc orthanc-dicomweb prometheus dcmtk dicom3tools pixelmed-apps chromium nginx docker-compose \
  systemd shellcheck gcc libc6-dev rsyslog rsyslog-openssl libxml2-utils \
  $(if $(shell command -v kubectl),,kubernetes-client)

# One more than cores, four at most: a test that runs a node or a browser waits for it half the time.
WORKERS = $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))

# Where `make viewer-test` installs the viewers (300 MB), outside the source tree.
VIEWERS ?= $(HOME)/.cache/cmb-node-viewers

# One script a question; those that need simulated studies are described in docs/simulation.md and docs/results.md.
BENCH := start receive reading ledger worklist desk brain detect turnaround throughput

.PHONY: help demo test tests check lint style types viewer-test chaos bench debian lock image-test release clean
help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.runtime  ## Install, then run the main job once: a study in, SR and SEG out
	@$(BIN)/cmbnode demo

test:  ## Install everything, then check style and types and run all tests
	@$(MAKE) --no-print-directory -j2 $(VENV)/.develop debian  # each waits for the network or the disk
	@$(MAKE) --no-print-directory style
	@$(MAKE) --no-print-directory -j2 types tests  # mypy needs one core for a minute, where nothing of it is cached

tests:
	@echo "── tests"
	@$(BIN)/python -m compileall -q node pipeline training tests  # once, not in each process that a test starts
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 5

check: lint  ## For the inner loop: style, types and the quick tests (two minutes)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not integration and not browser and not slow"

viewer-test: $(VENV)/.develop debian  ## Open results in the OHIF viewer and read them with Cornerstone's adapters (Node.js 20; ten minutes)
	@command -v npm >/dev/null || { echo "viewer-test needs Node.js 20 with npm; see https://nodejs.org" >&2; exit 1; }
	@$(BIN)/python -m tests.viewers.packages $(VIEWERS)
	@CMBNODE_VIEWERS=$(VIEWERS) $(BIN)/python -m pytest tests/viewers

chaos: $(VENV)/.develop debian  ## Strike a real site with 200 random faults, on SQLite and on PostgreSQL (half an hour)
	@$(BIN)/python -m tests.chaos

lint: style types  ## Check style and types

style: $(VENV)/.develop
	@echo "── style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: $(VENV)/.develop
	@echo "── types (mypy)"
	@$(BIN)/mypy

bench: $(VENV)/.develop debian  ## Run the benchmarks; each prints one table (a quarter of an hour)
	@for question in $(BENCH); do echo; echo "── $$question"; $(BIN)/python -m benchmarks.$$question || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cmb-node needs Python 3.11 or newer; name one with PYTHON=python3.11 make …" >&2; exit 1; }
	@echo "── virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/pins: $(LOCKS) | $(BIN)/python
	@sed 's/ --hash=.*//' $(LOCKS) > $@  # an editable install has no hash, and pip wants them for all or for none

# Where there is no GPU, PyTorch's CPU build, if the index has it (see docs/install.md); training and tests need the other.
$(VENV)/.runtime: pyproject.toml requirements-cpu.lock $(VENV)/pins
	@if [ ! -e /dev/nvidiactl ] && [ ! -e $(VENV)/.develop ] && $(PIP) download --quiet --no-deps --dest $(VENV)/torch \
	    "$$(sed -n 's/ --hash.*//; /^torch==/p' requirements-cpu.lock)" 2>/dev/null; then \
	  echo "── no GPU: installing cmb-node with PyTorch's CPU build (1.6 GB, a minute or two)"; \
	  sed 's/ --hash=.*//' requirements-cpu.lock > $(VENV)/pins-cpu; \
	  $(PIP) install --quiet --find-links $(VENV)/torch --constraint $(VENV)/pins-cpu --editable . && rm -r $(VENV)/torch; \
	else \
	  echo "── installing cmb-node at the versions of requirements.lock (with PyTorch and CUDA: 6.2 GB, a few minutes)"; \
	  $(PIP) install --quiet --constraint $(VENV)/pins --editable .; \
	fi
	@touch $@

$(VENV)/.develop: pyproject.toml $(VENV)/pins
	@echo "── installing cmb-node with its training and test parts at the versions of $(LOCKS)"
	@$(PIP) install --quiet --constraint $(VENV)/pins --editable '.[training,test]'
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

lock: $(VENV)/.develop  ## Write the versions now installed to the requirements*.lock files
	@$(BIN)/python deploy/lock.py

image-test:  ## Build the container image and run the demo in it (Docker, or buildah and podman as root)
	@deploy/image-test.sh

release:  ## Make a signed release in dist/: make release KEY=… [REGISTRY=…] (root; buildah, podman, skopeo; half an hour)
	@deploy/release/release.sh --key "$(KEY)" $(if $(REGISTRY),--registry "$(REGISTRY)")

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
