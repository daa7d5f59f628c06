# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real hosts for tests. See real_hosts.py for what a lab can do."""
from __future__ import annotations

import hashlib

import pytest

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import ROOT
from ansible_collections.kvmfleet.core.tests.lab.real_hosts import RealHosts


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory):
    """A function: a lab of bare hosts under a name of the caller's, which is removed at the end of the session.

    C(make_lab("hostnet", "--hosts", "2", "--network-system", "ifupdown,netplan")); the options are those of C(scripts/lab.sh up). A fixture of scope
    module or session is the place to call it. The name is told apart from other checkouts', and stays the same, so that what a killed session has left
    is found and removed before.
    """
    made = []

    def make(name, *options):
        lab = RealHosts("test-{0}-{1}".format(name, hashlib.sha256(ROOT.encode()).hexdigest()[:4]), tmp_path_factory.mktemp(name) / "lab", *options)
        lab.down()
        made.append(lab)
        lab.up()
        return lab

    yield make
    for lab in made:
        lab.down()
