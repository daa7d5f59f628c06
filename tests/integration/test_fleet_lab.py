# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: each of its hosts is one of its own, for Ansible inside it and for libvirt's clients outside."""
from __future__ import annotations

import libvirt
import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks


@pytest.fixture
def capacities(lab, tmp_path):
    """A function: what host_capacity says on each host, failures included."""
    books = FleetPlaybooks(lab, tmp_path)
    tasks = [
        {"kvmfleet.core.host_capacity": {"vms": True, "timeout": 3}, "register": "seen",
         "failed_when": "seen.vms is not defined and seen.reason is not defined"},
        {"ansible.builtin.set_stats": {"data": "{{ {'kvmfleet': {inventory_hostname: seen}} }}"}},
    ]
    (tmp_path / "capacity.yml").write_text(yaml.safe_dump([{"hosts": "kvm_hosts", "gather_facts": False, "tasks": tasks}]))
    return lambda: books.does(str(tmp_path / "capacity.yml")).data


def test_hosts_are_apart(lab, capacities):
    lab["kvm2"].define("theirs")
    seen = capacities()
    assert [[vm["name"] for vm in seen[host]["vms"]] for host in ("kvm1", "kvm2", "kvm3")] == [[], ["theirs"], []]
    assert {seen[host]["pools"]["default"]["path"] for host in seen} == {"/var/lib/libvirt/images"}
    for host in lab.hosts:
        outside = libvirt.open(host.uri)
        assert [domain.name() for domain in outside.listAllDomains()] == [vm["name"] for vm in seen[host.host]["vms"]]
        outside.close()
    assert len({host.conn.getCapabilities().split("<uuid>")[1][:36] for host in lab.hosts}) == 3


def test_a_hung_host_is_told(lab, capacities):
    with lab["kvm2"].hung():
        seen = capacities()
    assert [seen[host].get("reason") for host in ("kvm1", "kvm2", "kvm3")] == [None, "host_unreachable", None]
    assert capacities()["kvm2"].get("reason") is None
