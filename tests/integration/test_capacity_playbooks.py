# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet has and offers: capacity and lists over three hosts, held against what can really be made, with dead hosts among them."""
from __future__ import annotations

import re

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

SHOWS = ("capacity", "list_hosts", "list_images", "list_flavors", "list_networks")
TINY_MIB = 64 + qemu_overhead_mib(64, 1, disks=2)
VM = {"vm_image": "debian:12", "vm_flavor": "tiny", "vm_state": "stopped", "vm_wait": "none", "vm_ssh_key": "none"}
# Nobody listens there.
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}


@pytest.fixture
def fleet(lab, tmp_path):
    return FleetPlaybooks(lab, tmp_path)


def memory(vms, **more):
    """Host variables with memory for so many tiny VMs, and a MiB less than one more needs."""
    return dict({"kvm_totals": {"vcpus": 100, "memory": "{0}MiB".format((vms + 1) * TINY_MIB - 1), "disk": "1TiB"}}, **more)


def fits(run, flavor="tiny"):
    return next(found for found in run.data["flavors"] if found["name"] == flavor)


def test_what_fits_is_what_can_be_made(fleet, lab):
    fleet.room((0, 0, 0), kvm1=memory(2), kvm2=memory(1), kvm3=memory(3, kvm_schedulable=False))
    shown = fleet.does("capacity")
    assert (shown.changed, fits(shown)["fits"], fits(shown)["hosts"]) == (0, 3, {"kvm1": 2, "kvm2": 1})
    assert fits(shown)["zones"] == {"zone-a": 2, "zone-b": 1, "zone-c": 0}
    assert fits(fleet.does("capacity", vm_reserve_failures="1"))["fits"] == 1, "one of two hosts has to be able to hold everything"
    assert fits(fleet.does("kvmfleet.core.capacity", vm_zone="zone-b"))["fits"] == 1

    assert fleet.refusal("create_vm", vm_name="web", vm_count="4", **VM).reason == "no_capacity"
    fleet.does("create_vm", vm_name="web", vm_count="3", **VM)
    full = fleet.does("capacity", "--check")
    assert fits(full)["fits"] == 0
    by_name = {host["name"]: host for host in full.data["hosts"]}
    assert by_name["kvm1"]["memory"]["allocated_mib"] == 2 * TINY_MIB and by_name["kvm1"]["memory"]["available_mib"] == TINY_MIB - 1
    assert full.data["total"]["vcpus"]["allocated"] == 3 and by_name["kvm3"]["status"] == "no new VMs"
    assert re.search(r"^kvm1 +up +here +zone-a +memory +\[=+\.+\] +", full.output, re.MULTILINE)
    assert re.search(r"^kvm3 +no new VMs +here +zone-c +disk default +\[[#.]+\] +", full.output, re.MULTILINE)
    assert re.search(r"^here +zone-a +1 +2 of 100 +98 +", full.output, re.MULTILINE)
    assert re.search(r"^here +zone-c +1 +0 of 100 +0 +", full.output, re.MULTILINE) and "Not in what is left: 100 of vcpus, " in full.output
    assert (full.data["total"]["vcpus"]["available"], full.data["total"]["vcpus"]["closed"]) == (197, 100)
    hosts = fleet.does("list_hosts")
    assert [host["vms"] for host in hosts.data["hosts"]] == [2, 1, 0] and "3 hosts, 3 up" in hosts.output


def test_dead_hosts_are_named_and_stop_nobody(fleet, lab):
    fleet.room((4, 4, 4), kvm2=UNREACHABLE)
    with lab["kvm3"].hung():
        for show in SHOWS:
            shown = fleet.does(show, vm_capacity_timeout="2")
            assert shown.data["unreachable"] == ["kvm2", "kvm3"] and shown.changed == 0
            assert re.search(r"^kvm2: The host is unreachable: ", shown.output, re.MULTILINE)
            assert re.search(r"^kvm3: libvirt at .* did not answer within 2 s", shown.output, re.MULTILINE)
            if show in ("capacity", "list_hosts"):
                assert [host["status"] for host in shown.data["hosts"]] == ["up", "unreachable", "unreachable"]
            if show == "capacity":
                assert fits(shown)["hosts"] == {"kvm1": 4} and re.search(r"^kvm3 +unreachable +here +zone-c +-", shown.output, re.MULTILINE)
    fleet.room((4, 4, 4), kvm1=UNREACHABLE, kvm2=UNREACHABLE, kvm3=dict(UNREACHABLE, ansible_port=10))
    for show in ("capacity", "list_images"):
        dead = fleet.refusal(show)
        assert dead.reason == "host_unreachable" and "kvm1, kvm2: The host is unreachable" in dead.message and "kvm3: " in dead.message


def test_a_group_sees_what_is_for_it(fleet, lab):
    fleet.catalogs.update({
        "kvmfleet_groups": {"red": {"quota": {"vms": 2, "vcpus": 4}}, "blue": {"locked": True}},
        "kvmfleet_images": dict(fleet.catalogs["kvmfleet_images"], **{"own:1": {"volume": "own.qcow2", "groups": ["blue"]}}),
        "kvmfleet_networks": dict(fleet.catalogs["kvmfleet_networks"], ops={"admin_only": True})})
    fleet.room((4, 4, 4), kvm2={"kvm_groups": ["blue"]}, kvm3={"kvm_admin_only": True})
    fleet.does("create_vm", vm_name="web", vm_group="red", **VM)
    shown = fleet.does("capacity", vm_group="red")
    assert [host["name"] for host in shown.data["hosts"]] == ["kvm1"] and (fits(shown)["fits"], fits(shown)["quota_leaves"]) == (3, 1)
    assert "Group red has 1 of 2 VMs, 1 of 4 vcpus" in shown.output and "quota leaves" in shown.output
    assert [host["name"] for host in fleet.does("list_hosts", vm_group="blue").data["hosts"]] == ["kvm1", "kvm2"]
    assert [image["name"] for image in fleet.does("list_images", vm_group="red").data["images"]] == ["debian:12"]
    assert [network["name"] for network in fleet.does("list_networks", vm_group="red").data["networks"]] == ["default", "pooled"]
    assert "Group blue is locked: it gets no new VMs" in fleet.does("list_flavors", vm_group="blue").output
    operators = [fleet.does(show).data for show in ("list_hosts", "list_images", "list_networks")]
    assert [len(data[key]) for data, key in zip(operators, ("hosts", "images", "networks"))] == [3, 2, 3]


def test_images_networks_and_how_full_their_pools_are(fleet, lab):
    fleet.address_pool(5)
    fleet.catalogs["kvmfleet_images"]["more:1"] = {"volume": "more.qcow2", "min_memory": "1GiB", "eol": True}
    fleet.room((4, 4, 4))
    lab["kvm2"].make_volume("more.qcow2", 1 << 20)
    shipped = fleet.does("list_images", kvmfleet_shipped_images="true")
    assert "rocky:9" in {image["name"] for image in shipped.data["images"]}, "what comes with the collection is not on offer"
    images = fleet.does("list_images")
    assert [(image["name"], image["hosts"]) for image in images.data["images"]] == [("debian:12", ["kvm1", "kvm2", "kvm3"]), ("more:1", ["kvm2"])]
    assert re.search(r"^more:1 +- +1GiB +- +yes +kvm2$", images.output, re.MULTILINE) and "2 images" in images.output
    fleet.does("create_vm", vm_name="web", vm_count="2", vm_network="pooled", **VM)
    networks = fleet.does("list_networks")
    pooled = next(network for network in networks.data["networks"] if network["name"] == "pooled")
    assert (pooled["address_pool"]["used"], pooled["address_pool"]["free"], pooled["hosts"]) == (2, 3, ["kvm1", "kvm2", "kvm3"])
    assert re.search(r"^pooled +198.51.100.0/24 +198.51.100.1 +few +2 +3 +all$", networks.output, re.MULTILINE)
    flavors = fleet.does("list_flavors")
    assert fits(flavors)["fits"] == 10 and re.search(r"^tiny +1 +64MiB +16MiB +10 +zone-a ", flavors.output, re.MULTILINE)


@pytest.mark.parametrize("show", SHOWS)
def test_a_zone_that_is_none(fleet, show):
    assert re.search("vm_zone = 'zone-q': no host is in this zone. Perhaps zone-[abc] was meant", fleet.refuses(show, vm_zone="zone-q"))


def test_bad_input(fleet):
    assert "vm_zoen" in fleet.refuses("list_hosts", vm_zoen="zone-a")
    assert "vm_capacity_timeout" in fleet.refuses("list_images", vm_capacity_timeout="soon")
    assert "vm_reserve_failures" in fleet.refuses("capacity", vm_reserve_failures="2")
    fleet.room((4, 4, 4), kvm2={"kvm_ratios": {"cpus": 2}})
    assert "kvm_ratios.cpus of host kvm2" in fleet.refuses("list_networks")
    fleet.catalogs["kvmfleet_groups"] = {"red": {}}
    fleet.catalogs["kvmfleet_flavors"]["bad"] = {"vcpus": "x"}
    fleet.room((4, 4, 4))
    assert "Perhaps red was meant" in fleet.refuses("capacity", vm_group="rod")
    shown = fleet.does("list_flavors")
    assert fits(shown)["fits"] == 12 and "kvmfleet_flavors.bad.vcpus = 'x'" in shown.output
