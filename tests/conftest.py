# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark `long`, which ansible-test has to know as well as plain pytest, and how hypothesis runs."""
from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A loaded machine is no reason to fail; a gate has to give the same answer twice
settings.register_profile("kvmfleet", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("kvmfleet")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a sweep for `make test-long`, of which `make test` runs a sample")


def pytest_collection_modifyitems(items):
    if os.environ.get("KVMFLEET_LONG"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="runs in `make test-long`"))
