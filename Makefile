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

PACKAGES := $(addprefix packages-,build check run image test bench lab browser events)
.PHONY: $(PACKAGES) venv requirements
$(PACKAGES): packages-%:
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
demo: packages-run packages-image venv  ## A VM from a real cloud image on this machine, answering on SSH
	@scripts/demo.sh

demo-clean: venv  ## Remove what the demo made
	@scripts/demo-clean.sh

.PHONY: lab lab-clean
lab: packages-lab packages-image venv  ## Three real KVM hosts (systemd, sshd, libvirtd) as containers on this machine, and their inventory
	@scripts/lab.sh up

lab-clean: venv  ## Remove the lab
	@scripts/lab.sh down

## Gates

.PHONY: check ruff mypy vermin shellcheck unit
check: packages-check venv  ## Lint and unit tests: under a minute once .venv is there
	@$(PYTHON) scripts/stages.py check

ruff: venv
	ruff check --output-format concise .

mypy: venv
	mypy -p ansible_collections.kvmfleet.core.plugins

vermin: venv
	vermin --target=3.8- --violations --no-tips --eval-annotations $(HOST_SIDE)

shellcheck: packages-check
	shellcheck $(SCRIPTS)

unit: packages-check venv  ## Unit tests with pytest
	pytest -n 2 tests/unit

.PHONY: sanity units $(CORES:%=units-%) lint packaging docs build integration test-image
sanity: packages-check venv  ## ansible-test sanity on core 2.19
	scripts/ansible-test.sh sanity

units: packages-check venv  ## ansible-test units on core 2.19; units-2.17 and units-2.18 with plain pytest
	scripts/ansible-test.sh units

$(CORES:%=units-%): units-%: packages-check venv-%
	PATH=$(VENV)-$*/bin:$$PATH $(VENV)-$*/bin/pytest -n 2 tests/unit

lint: venv  ## ansible-lint, antsibull-docs and the changelog fragments
	ansible-lint
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .
	antsibull-changelog lint

build: venv  ## The tarball, in build/
	ansible-galaxy collection build --force --output-path build

packaging: packages-test venv  ## The tarball installed and run in an empty virtual environment
	pytest tests/packaging

docs: venv  ## All pages and the reference as a site, in docs/_build/html
	scripts/docs.sh

test-image: packages-image
	scripts/build-image.sh

integration: packages-test venv  ## Everything against a real libvirtd
	scripts/with-libvirtd.sh pytest --timeout 900 -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests/integration

.PHONY: molecule molecule-fleet lab-tests awx events browser
molecule: packages-lab packages-test venv  ## The molecule scenarios, each in a lab of its own; SCENARIO=fleet for one
	scripts/molecule.sh $(SCENARIO)

molecule-fleet: packages-lab packages-test venv
	scripts/molecule.sh fleet

lab-tests: packages-lab packages-test venv  ## What only real hosts can show: networks that cannot lock out, set-up of hosts, the tutorial
	scripts/with-libvirtd.sh pytest --timeout 900 tests/lab

awx: packages-test venv  ## Job templates, surveys and jobs as AWX runs them
	scripts/with-libvirtd.sh pytest --timeout 900 tests/awx

events: packages-test packages-events venv  ## Rulebooks, by a real ansible-rulebook
	scripts/with-libvirtd.sh pytest --timeout 900 tests/events

browser: packages-browser venv  ## The fleet page in a real browser
	pytest --timeout 900 tests/browser

.PHONY: test test-long bench
test: packages-build  ## All gates but test-long and bench; what .ci/run runs
	@$(PYTHON) scripts/stages.py test

test-long: packages-test packages-lab packages-events packages-browser venv $(CORES:%=venv-%)  ## The long sweeps
	KVMFLEET_LONG=1 scripts/with-libvirtd.sh pytest tests/unit tests/integration tests/awx tests/events tests/lab tests/browser

bench: packages-test packages-bench venv  ## Figures against their peers, in .bench/results.json
	pip install --quiet --requirement requirements/bench.txt
	scripts/with-libvirtd.sh python tests/bench/run.py
