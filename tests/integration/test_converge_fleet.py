# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that a fleet file declares: planned by the inventory, made by converge_fleet, and their secrets nowhere to be seen."""
from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN

SMALL = {"image": "debian:12", "memory": "64MiB", "vcpus": 1, "state": "stopped"}
SECRET = "SECRETpassword"


@pytest.fixture
def fleet(lab, tmp_path):
    """Playbooks over three hosts, with a fleet file beside the inventory."""
    fleet = FleetPlaybooks(lab, tmp_path)
    fleet.declare = lambda *vms: (tmp_path / "my.fleet.yml").write_text(yaml.safe_dump({
        "plugin": "kvmfleet.core.fleet", "hosts": {host.host: {"uri": host.uri} for host in lab.hosts}, "vms": list(vms)}))
    return fleet


def converge(fleet, *options, **given):
    """Run converge_fleet over inventory and fleet file."""
    return fleet.does("converge_fleet", "-i", str(fleet.folder / "my.fleet.yml"), *options, vm_key_dir=fleet.keys, **given)


def test_declared_vms(fleet, lab):
    fleet.declare(dict(SMALL, name="web", count=3, max_per_host=1), dict(SMALL, name="db", zone="zone-b", vcpus=2, root_password=SECRET))
    command = [os.path.join(BIN, "ansible-inventory"), "-i", str(fleet.folder / "inventory.yml"), "-i", str(fleet.folder / "my.fleet.yml"), "--list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=fleet.command("list_vms")[1], cwd=fleet.folder, timeout=120)
    assert SECRET not in listed.stdout + listed.stderr
    planned = next(iter(json.loads(listed.stdout)["_meta"]["hostvars"].values()))["kvm_plan"]["declared"]
    foretold = {vm["name"]: vm["host"] for vm in planned["vms"]}
    assert sorted(foretold) == ["db", "web-1", "web-2", "web-3"] and foretold["db"] == "kvm2"

    dry = converge(fleet, "--check", "--diff")
    assert dry.data["changed"] == 4 and lab.where() == {} and SECRET not in dry.output and "Placement (spread)" in dry.output
    made = converge(fleet, "-vv")
    assert {vm["name"]: vm["host"] for vm in made.data["vms"]} == foretold and made.data["changed"] == 4
    assert sorted(sum(lab.where().values(), [])) == ["db", "web-1", "web-2", "web-3"]
    assert SECRET not in made.output and not any(SECRET in domain.XMLDesc() for host in lab.hosts for domain in host.domains())
    again = converge(fleet)
    assert (again.changed, again.data["changed"]) == (0, 0)

    # Grown, one more declared, and the set smaller: it shrinks when that is said.
    fleet.declare(dict(SMALL, name="web", count=2, max_per_host=1), dict(SMALL, name="db", zone="zone-b", vcpus=3, root_password=SECRET),
                  dict(SMALL, name="mail"))
    changed = converge(fleet)
    assert {vm["name"] for vm in changed.data["vms"] if vm["result"] != "unchanged"} == {"db", "mail"} and "web-3" in changed.output
    assert converge(fleet, vm_scale_down="true").vms["web-3"]["result"] == "deleted"
    assert converge(fleet, vm_scale_down="true").changed == 0


def test_all_or_none(fleet, lab):
    fleet.declare(dict(SMALL, name="web"), dict(SMALL, name="huge", vcpus=5))
    refused = fleet.refusal("converge_fleet", "-i", str(fleet.folder / "my.fleet.yml"))
    assert refused.reason == "no_capacity" and "huge" in refused.message and lab.where() == {}


def test_faults_of_the_file(fleet, lab):
    fleet.declare(dict(SMALL, name="web", memory="64"))
    refused = fleet.refusal("converge_fleet", "-i", str(fleet.folder / "my.fleet.yml"))
    assert "my.fleet.yml, line" in refused.message and "vms[0]" in refused.message and lab.where() == {}
    fleet.declare()
    assert "declares no VMs" in fleet.refusal("converge_fleet", "-i", str(fleet.folder / "my.fleet.yml")).message
    assert "kvmfleet_file" in fleet.refusal("converge_fleet").message


def test_a_frozen_inventory(fleet, lab):
    """What AWX gives a job is what the inventory said some time ago: placement goes by what the hosts say now."""
    fleet.declare()
    env = fleet.command("list_vms")[1]
    sources = ["-i", str(fleet.folder / "inventory.yml"), "-i", str(fleet.folder / "my.fleet.yml")]
    command = [os.path.join(BIN, "ansible-inventory"), *sources, "--list", "--export"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=fleet.folder, timeout=120).stdout
    (fleet.folder / "frozen.json").write_text(frozen)
    script = fleet.folder / "inventory.yml"   # as AWX has it: a script that prints what was stored
    script.write_text("#!/bin/sh\nexec cat {0}\n".format(fleet.folder / "frozen.json"))
    script.chmod(0o755)
    given = dict({"vm_" + key: value for key, value in SMALL.items()}, vm_wait="none", vm_ssh_key="none")
    for number, name in enumerate(("a", "b", "c"), 1):
        fleet.does("create_vm", vm_name=name, vm_vcpus=4, **{k: v for k, v in given.items() if k != "vm_vcpus"})
        assert [len(found) for found in lab.where().values()] == [1] * number, "each fills a host, which the frozen inventory does not know"
    assert fleet.refusal("create_vm", vm_name="d", **given).reason == "no_capacity"
