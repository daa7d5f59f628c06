# Everything a developer runs. Each target works from a clean clone: it makes .venv and installs the Debian packages that it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The interpreter the virtual environments are made with
PYTHON ?= /usr/bin/python3
VENV := $(CURDIR)/.venv
CORES := 2.17 2.18
COLLECTION := .ansible/collections/ansible_collections/kvmfleet/core

export PATH := $(VENV)/bin:/usr/local/sbin:/usr/sbin:/sbin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.ansible/collections
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport ANSIBLE_CONFIG VIRTUAL_ENV PYTHONPATH

HOST_SIDE := plugins/modules plugins/module_utils plugins/doc_fragments
SCRIPTS = $(shell git ls-files -co --exclude-standard -- '*.sh' .ci/run)

.PHONY: help
help:  ## This list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## What the others stand on

.PHONY: packages-build packages-test packages-bench venv requirements
packages-build packages-test packages-bench: packages-%:
	@scripts/packages.sh $*

venv: packages-build  ## The virtual environment .venv, as pinned
	@scripts/venv.sh $(VENV) requirements/dev.txt $(PYTHON)
	@scripts/link.sh

.PHONY: $(CORES:%=venv-%)
$(CORES:%=venv-%): venv-%: packages-build
	@scripts/venv.sh $(VENV)-$* requirements/core-$*.txt $(PYTHON)
	@scripts/link.sh

requirements: packages-build  ## Pin anew what requirements/dev.in asks for
	scripts/pin.sh requirements/dev.in requirements/dev.txt $(PYTHON)

## For users

.PHONY: demo demo-clean
demo: venv  ## A VM from a real cloud image on this machine, answering on SSH
	@scripts/demo.sh

demo-clean: venv  ## Remove what the demo made
	@scripts/demo-clean.sh

## Gates

.PHONY: check ruff mypy vermin shellcheck unit
check: venv  ## Lint and unit tests: under a minute once .venv is there
	@scripts/stages.py check

ruff: venv
	ruff check --output-format concise .

mypy: venv
	mypy -p ansible_collections.kvmfleet.core.plugins

vermin: venv
	vermin --target=3.8- --violations --no-tips --eval-annotations $(HOST_SIDE)

shellcheck: packages-test
	shellcheck $(SCRIPTS)

unit: venv  ## Unit tests, straight with pytest
	pytest -n 2 tests/unit
