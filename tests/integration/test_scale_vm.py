# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""scale_vm over three hosts: what a step does and what holds it back, what new members are like, and runs that meet."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_ssh_key": "none"}
STOPPED = {"vm_state": "stopped", "vm_wait": "none"}
UP = dict(STOPPED, vm_name="web", vm_direction="up", vm_max=6)
DOWN = dict(STOPPED, vm_name="web", vm_direction="down")


@pytest.fixture
def fleet(lab, tmp_path):
    """Playbooks over three hosts with room for four small VMs each."""
    return FleetPlaybooks(lab, tmp_path)


def names(lab):
    """The names of all domains, one that two hosts have twice."""
    return sorted(name for listed in lab.where().values() for name in listed)


def kept(lab, name="web-1"):
    """What a VM's metadata keeps of the last act of scaling."""
    return next(meta.scaling for found, meta in lab.ours() if found == name)


def made_of(lab, name):
    """What a VM is, but for what is each VM's own."""
    domain = next(d for host in lab.hosts for d in host.domains() if d.name() == name)
    root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    meta = _metadata.summary(_metadata.find(root))
    return {key: meta[key] for key in set(meta) - {"index", "static_addresses"}}, [root.findtext(key) for key in ("memory", "vcpu", "description")], [
        v.size for v in _metadata.find(root).volumes], [source.attrib for source in root.iterfind("devices/interface/source")]


def test_steps_up_and_down(fleet, lab):
    """One alert, one step; no step within the cooldown; never beyond the bounds; what was not done holds back nothing."""
    fleet.does("create_vm", vm_name="web", vm_count=2, **VM, **STOPPED)
    before = lab.snapshot()
    foretold = fleet.does("scale_vm", "--check", vm_alert="cpu", vm_step=2, **UP)
    assert (foretold.data["scaling"]["to"], foretold.data["changed"], lab.snapshot()) == (4, 2, before) and "would be scaled from 2 to 4" in foretold.output
    up = fleet.does("scale_vm", vm_alert="cpu", vm_step=2, **UP)
    assert names(lab) == ["web-1", "web-2", "web-3", "web-4"] and {vm: facts["host"] for vm, facts in up.vms.items()} == {
        vm: facts["host"] for vm, facts in foretold.vms.items()}
    assert made_of(lab, "web-3") == made_of(lab, "web-1") and not kept(lab).open and len(kept(lab).alerts) == 1

    same = fleet.does("scale_vm", vm_alert="cpu", vm_cooldown=0, **UP)
    assert (same.changed, same.data["scaling"]["reason"], same.data["scaling"]["to"]) == (0, "alert_done", 4) and "has been acted on" in same.output
    other = fleet.does("scale_vm", vm_alert="cpu again", **UP)
    assert (other.changed, other.data["scaling"]["reason"]) == (0, "cooldown") and "vm_cooldown is 300 s" in other.output
    down = fleet.does("scale_vm", vm_cooldown=0, vm_step=9, vm_min=2, **DOWN)
    assert names(lab) == ["web-1", "web-2"] and len(lab.files()) == 4 and down.data["changed"] == 2


@pytest.mark.long
def test_a_refusal_uses_up_no_alert(fleet, lab):
    fleet.does("create_vm", vm_name="web", vm_count=2, **VM, **STOPPED)
    fleet.room((1, 1, 1))
    assert fleet.refusal("scale_vm", vm_alert="cpu", vm_step=3, **UP).reason in ("no_capacity", "no_vcpus")
    fleet.room((4, 4, 4))
    grown = fleet.does("scale_vm", vm_alert="cpu", vm_step=9, **UP)
    assert grown.data["scaling"]["to"] == 6 == len(names(lab)), "vm_max ends a step"


def test_a_number_and_what_is_in_the_way(fleet, lab):
    """The numbers that others have are passed over, and a host that cannot be asked stops it all."""
    fleet.does("create_vm", vm_name="web", vm_count=2, vm_ip="192.0.2.10", vm_labels="tier=front", vm_description="shop", vm_disks="8MiB", **VM, **STOPPED)
    lab["kvm3"].define("web-3")
    unknown = fleet.refusal("scale_vm", vm_name="wep", vm_count=2)
    assert unknown.reason == "unknown_set" and "wep" in unknown.message and "vm_create_set" in unknown.message
    fleet.room((4, 4, 4), kvm2={"ansible_python_interpreter": "/bin/false"})
    assert "kvm2" in fleet.refuses("scale_vm", vm_count=3, vm_name="web", **STOPPED)
    fleet.room((4, 4, 4))
    grown = fleet.does("scale_vm", vm_count=4, vm_name="web", **STOPPED)
    assert sorted(grown.vms) == ["web-4", "web-5"] and "web-3" in grown.output and made_of(lab, "web-5") == made_of(lab, "web-1")
    assert {name: meta.addresses for name, meta in lab.ours()}["web-5"] == ["192.0.2.14/24"], "the addresses go on with the numbers"
    assert fleet.does("scale_vm", vm_count=4, vm_name="web", **STOPPED).changed == 0


def test_what_a_seed_holds_is_asked_for(fleet, lab):
    """A set can be made by scaling; its packages are nowhere but in the seed, and so are its keys."""
    packages = {"vm_packages": "vim"}
    made = fleet.does("scale_vm", vm_create_set="true", vm_alert="cpu", **packages, **VM, **UP)
    assert list(made.vms) == ["web-1"] and len(kept(lab).alerts) == 1
    step = dict(UP, vm_cooldown=0)
    before = lab.snapshot()
    # Also where something is given, as AWX's surveys and credentials do it
    refused = fleet.refusal("scale_vm", vm_ssh_key="none", vm_root_password="x", **step)
    assert refused.reason == "unknown_seed" and "web-1" in refused.message and "vm_packages" in refused.message and lab.snapshot() == before
    same = fleet.does("scale_vm", **packages, **step)
    assert "differ" not in same.output and names(lab) == ["web-1", "web-2"]
    other = fleet.does("scale_vm", vm_allow_other_seed="true", **step)
    assert "differs from that of web-1" in other.output and names(lab) == ["web-1", "web-2", "web-3"]


@pytest.mark.long
def test_a_set_that_cannot_be_compared(fleet, lab):
    """What it was made of has gone from the inventory: naming another is enough where that tells whether the seeds are the same, and nothing is made else."""
    fleet.does("create_vm", vm_name="web", vm_count=1, vm_host="kvm1", vm_packages="vim", **VM, **STOPPED)
    images = fleet.catalogs["kvmfleet_images"]
    images["debian:13"] = images.pop("debian:12")
    fleet.room((4, 4, 4))
    named = dict(UP, vm_cooldown=0, vm_image="debian:13")
    refused = fleet.refusal("scale_vm", **named)
    assert refused.reason == "unknown_seed" and "vm_packages" in refused.message
    assert "differs from that" not in fleet.does("scale_vm", vm_packages="vim", **named).output
    # Where the first member is, there is no such network.
    fleet.room((4, 4, 4), kvm1={"kvm_networks": {"default": {"bridge": "lost"}}}, kvm2={"kvm_networks": {"other": {"network": "default"}}})
    elsewhere = dict(named, vm_network="other", vm_packages="vim")
    refused = fleet.refusal("scale_vm", **elsewhere)
    assert refused.reason == "unknown_seed" and "could not be compared with web-1" in refused.message
    assert "could not be compared with web-1" in fleet.does("scale_vm", vm_allow_other_seed="true", **elsewhere).output
    assert names(lab) == ["web-1", "web-2", "web-3"]


def test_runs_that_meet_act_once(fleet, lab, tmp_path):
    """Two runs for one alert, and one for another within the cooldown."""
    fleet.does("create_vm", vm_name="web", vm_count=1, **VM, **STOPPED)
    runs = [fleet.start("scale_vm", vm_alert=alert, **UP) for alert in ("cpu", "cpu", "latency")]
    done = [run.wait(300) for run in runs]
    assert [run.code for run in done] == [0] * 3, [run.output for run in done]
    assert names(lab) == ["web-1", "web-2"] and lab.residue() == []
    assert sorted(run.data["scaling"]["reason"] for run in done).count("scaled_up") == 1
