# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""scale_vm over three hosts: what a step does and what holds it back, what new members are like, and runs that meet."""
from __future__ import annotations

import pytest

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_state": "stopped", "vm_wait": "none", "vm_ssh_key": "none"}
QUIET = {"vm_state": "stopped", "vm_wait": "none"}


@pytest.fixture
def fleet(lab, tmp_path):
    """Playbooks over three hosts with room for four small VMs each."""
    return FleetPlaybooks(lab, tmp_path)


def names(lab):
    """The names of all domains, one that two hosts have twice."""
    return sorted(name for listed in lab.where().values() for name in listed)


def test_try(fleet, lab):
    fleet.does("create_vm", vm_name="web", vm_count=2, **VM)
    up = dict(QUIET, vm_name="web", vm_direction="up", vm_max=4)
    foretold = fleet.does("scale_vm", "--check", **up)
    print(foretold.output)
    r = fleet.does("scale_vm", vm_alert="cpu 1", **up)
    print(r.output, r.data)
    print(fleet.does("scale_vm", vm_alert="cpu 1", **up).output)
    print(fleet.does("scale_vm", vm_alert="cpu 2", **up).output)
    print(fleet.does("scale_vm", vm_alert="cpu 1", vm_cooldown=0, **up).output)
    print(fleet.does("scale_vm", vm_alert="cpu 2", vm_cooldown=0, vm_step=5, **up).output)
    print(fleet.does("scale_vm", **dict(up, vm_direction="down", vm_cooldown=0, vm_step=2)).output)
    print(names(lab))
    assert 0
