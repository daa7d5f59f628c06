# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet page of three hosts: what it tells of real VMs, dead hosts, a run that was refused; and when it counts as changed."""
from __future__ import annotations

import json
import os
import re
import stat

import pytest

from ansible_collections.kvmfleet.core.plugins.plugin_utils._page_html import data_of, print_of
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

VM = {"vm_image": "debian:12", "vm_flavor": "tiny", "vm_state": "stopped", "vm_wait": "none", "vm_ssh_key": "none"}
# Nobody listens there.
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
HOSTILE = "</script><script>alert(1)</script>"


def time_of(page):
    return re.search('<time datetime="(.*?)">', page).group(1)


@pytest.fixture
def fleet(lab, tmp_path):
    return FleetPlaybooks(lab, tmp_path)


def test_the_page_of_a_fleet(fleet, tmp_path):
    path, result = tmp_path / "fleet.html", tmp_path / "result.json"
    fleet.does("create_vm", vm_name="web", vm_count="2", vm_zone="zone-a", variables={"vm_description": HOSTILE}, vm_result_file=result, **VM)
    assert stat.S_IMODE(os.stat(result).st_mode) == 0o600

    foretold = fleet.does("fleet_page", "--check", "--diff")
    assert foretold.changed == 1 and not path.exists() and "+vm web-1 on kvm1: state stopped, size 1 vCPU, 64 MiB" in foretold.output
    made = fleet.does("fleet_page", fleet_page_last_run=result)
    page = path.read_text()
    assert made.changed == 1 and made.data["path"] == str(path) and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [(vm["name"], vm["host"], vm["state"], vm["description"]) for vm in data_of(page)["vms"]] == [
        ("web-1", "kvm1", "stopped", HOSTILE), ("web-2", "kvm1", "stopped", HOSTILE)]
    assert HOSTILE not in page and "Run of <b>create</b>" in page and "web-1, web-2" in page and "fleet.html: 3 of 3 hosts up, 2 VMs" in made.output

    again = fleet.does("fleet_page", fleet_page_last_run=result)
    assert again.changed == 0 and print_of(path.read_text()) == print_of(page) and time_of(path.read_text()) > time_of(page)
    assert fleet.does("kvmfleet.core.fleet_page", fleet_page_last_run=result, fleet_page_mode="0644").changed == 1
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644

    # A run that is refused leaves its reasons, and nothing else; the page shows them, with the hosts that are dead by now
    assert fleet.refusal("create_vm", vm_name="big", vm_vcpus="9", vm_memory="64MiB", vm_result_file=result, vm_ssh_key="none").reason == "no_capacity"
    (refusals,) = json.loads(result.read_text())["placement"]["refusals"]
    assert refusals["vms"] == ["big"] and [refused["host"] for refused in refusals["hosts"]] == ["kvm1", "kvm2", "kvm3"], "all of it is in the file"
    fleet.room((4, 4, 4), kvm2=UNREACHABLE)
    shown = fleet.does("fleet_page", "--diff", fleet_page_last_run=result, fleet_page_artifact="true")
    page = path.read_text()
    assert shown.changed == 1 and "-host kvm2: up, here, zone-b" in shown.output and "+host kvm2: unreachable, here, zone-b" in shown.output
    assert "kvm2: The host is unreachable: " in shown.output and shown.data["unreachable"] == ["kvm2"] and shown.data["html"] == page
    assert "Run of <b>create</b>" in page and "which failed" in page and all(text in page for text in (">big<", "kvm3 has 4 vcpus left, 9 vcpus asked"))
    assert [host["status"] for host in data_of(page)["hosts"]] == ["up", "unreachable", "up"]

    fleet.room((4, 4, 4), kvm1=UNREACHABLE, kvm2=UNREACHABLE, kvm3=UNREACHABLE)
    dead = fleet.refusal("fleet_page")
    assert dead.reason == "host_unreachable" and dead.message.endswith("The page is left as it was") and path.read_text() == page


def test_what_is_refused_and_what_awx_sees(fleet, tmp_path):
    other = tmp_path / "other.html"
    other.write_text("<p>Somebody's work</p>")
    assert "is a file, but no fleet page" in fleet.refuses("fleet_page", fleet_page_path=other) and other.read_text() == "<p>Somebody's work</p>"
    assert "is not JSON" in fleet.refuses("fleet_page", fleet_page_last_run=other)
    assert "Perhaps fleet_page_path was meant" in fleet.refuses("fleet_page", fleet_page_pat="x")
    assert "vm_result_file" in fleet.refuses("create_vm", vm_name="web", vm_result_file=tmp_path / "no" / "result.json", **VM)
    # As AWX runs it: a frozen inventory, nowhere to write but the temporary folder, and the artifacts of the job before in a variable
    done = fleet.does("fleet_page", environment={"AWX_JOB_ID": "7", "TMPDIR": str(tmp_path)}, variables={"kvmfleet": {
        "verb": "create", "vms": [{"name": "db", "host": "kvm2", "reason": "disk_full", "msg": "No space left"}]}})
    assert done.data["path"] == str(tmp_path / "kvmfleet-fleet.html") and "No space left <code>disk_full</code>" in (
        tmp_path / "kvmfleet-fleet.html").read_text()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".new-") or name == "fleet.html"]
