# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_set on a real libvirtd: batches, seeds, disks, claims, and room to the byte."""
# pylint: disable=repeated-keyword  # dict(a, b=1) overrides a's b, which pylint takes for a clash in calls
from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils import _domain_xml, _metadata, _volume_job, _volumes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"
MIB = 1 << 20


def item(where, short="web", **more):
    """A small VM with a disk on the image."""
    vm = {"name": where.name(short), "virt_type": "qemu", "vcpus": 1, "memory": "32MiB",
          "disks": [{"pool": where.pool, "image": "image.qcow2", "size": "16MiB"}]}
    vm.update(more)
    return vm


def metadata(where, short="web"):
    """Our metadata of a domain."""
    return _metadata.find(where.xml(short))


def tamper(where, short, **changes):
    """Overwrite parts of our metadata of a domain, as an earlier or another run would have left it."""
    meta = metadata(where, short)
    for key, value in changes.items():
        setattr(meta, key, value)
    text = ET.tostring(_metadata.to_element(meta, namespaced=False), encoding="unicode")
    where.domain(short).setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, _metadata.PREFIX, _metadata.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def test_the_life_of_a_batch(place, converge):
    """Made, grown, given another disk, stopped, deleted: one call each, nothing left."""
    nic = {"network": place.network, "addresses": ["192.0.2.10/24"], "gateway": "192.0.2.1", "nameservers": ["192.0.2.53"]}
    seed = {"hostname": "web", "ssh_keys": [KEY], "users": [{"name": "debian"}]}
    first = item(place, "a", state="running", nics=[nic], seed=seed, group="g1", namespace="n1", set="web", index=0, image="debian:12", flavor="small",
                 key_name="mine", vcpus_request="500m", memory_request="16MiB", labels={"x": "1"})
    second = item(place, "b", nics=[{"network": place.network}], disks=[
        {"pool": place.pool, "size": "4MiB", "format": "raw"}, {"name": "copy", "pool": place.pool, "image": "image.qcow2", "clone": "full"}])
    made = converge("vm_set", vms=[first, second])
    one, two = made["vms"]
    assert (one["state"], two["state"]) == ("running", "stopped") and one["address"] == "192.0.2.10" and one["image"] == "debian:12"
    assert one["vcpus_request"] == 0.5 and one["group"] == "g1" and one["static_addresses"] == ["192.0.2.10/24"]
    assert [d["name"] for d in two["disks"]] == ["root", "copy"] and one["nics"][0]["mac"] != two["nics"][0]["mac"]
    assert place.files() == sorted(v["name"] for vm in made["vms"] for v in vm["volumes"])
    assert all(os.stat(place.path(name)).st_mode & 0o077 == 0 for name in place.files())
    assert metadata(place, "a").phase == "ready" and metadata(place, "a").ticket is None
    first["disks"] = [{"size": "24MiB"}, {"name": "data", "size": "2MiB"}]
    second["disks"][0]["size"] = "8MiB"
    grown = converge("vm_set", vms=[first, second])
    root = next(d for d in grown["vms"][0]["disks"] if d["name"] == "root")
    assert grown["vms"][0]["restart_required"] == [] and root["size_bytes"] == 24 * MIB == place.size(root["volume"])
    assert place.domain("a").blockInfo("vda")[0] == 24 * MIB
    assert len(place.xml("a", live=True).findall("devices/disk")) == 3 and place.size(two["volumes"][0]["name"]) == 8 * MIB
    converge("vm_set", vms=[{"name": place.name(short), "state": "absent"} for short in "abc"])
    assert place.files() == [] and place.domains() == []


def test_a_changed_seed_keeps_the_instance(place, converge):
    """It is written, the guest reads it only as another instance, and the result says so."""
    converge("vm_set", vms=[item(place, seed={"hostname": "one"})])
    before = metadata(place)
    path = place.path(before.volume("seed").name)
    with open(path, "rb") as stream:
        content = stream.read()
    changed = converge("vm_set", vms=[item(place, seed={"hostname": "two"})])["vms"][0]
    after = metadata(place)
    assert changed["takes_effect"] == "next_instance" and changed["restart_required"] == []
    assert before.seed_instance_id == after.seed_instance_id == changed["uuid"] and before.seed_hash != after.seed_hash
    with open(path, "rb") as stream:
        assert stream.read() != content
    assert "takes_effect" not in converge("vm_set", vms=[item(place, seed={"hostname": "two"})])["vms"][0]
    assert converge("vm_set", vms=[item(place)])["changed"] is False
    os.unlink(path)
    place.handle.refresh()
    assert converge("vm_set", vms=[item(place, seed={"hostname": "two"})])["changed"] is True and os.path.exists(path)


def test_defaults_are_for_new_vms_only(place, converge):
    """default_vcpus, default_memory, default_size: one that exists keeps what it has."""
    wanted = {"name": place.name(), "virt_type": "qemu", "default_vcpus": 2, "default_memory": "48MiB",
              "disks": [{"pool": place.pool, "image": "image.qcow2", "default_size": "16MiB"}]}
    made = converge("vm_set", vms=[wanted])["vms"][0]
    assert (made["vcpus"], made["memory_mib"], made["volumes"][0]["size_bytes"]) == (2, 48, 16 * MIB)
    other = dict(wanted, default_vcpus=1, default_memory="32MiB", disks=[dict(wanted["disks"][0], default_size="32MiB")])
    assert converge("vm_set", vms=[other])["changed"] is False


def test_kept_disks_and_the_users_own(place, converge):
    """delete_disks: false keeps the disks, never the seed; a user's volume goes only where marked."""
    for name in ("mine.qcow2", "given.qcow2"):
        place.make_volume(name, MIB)
    disks = item(place)["disks"] + [{"name": "mine", "pool": place.pool, "volume": "mine.qcow2"},
                                    {"name": "given", "pool": place.pool, "volume": "given.qcow2", "delete_with_vm": True}]
    made = converge("vm_set", vms=[item(place, disks=disks, seed={"hostname": "web"})])["vms"][0]
    kept = next(v["name"] for v in made["volumes"] if v["disk"] == "root")
    converge("vm_set", vms=[{"name": place.name(), "state": "absent", "delete_disks": False}])
    assert place.files() == sorted([kept, "mine.qcow2", "given.qcow2"])
    made = converge("vm_set", vms=[item(place, disks=disks, seed={"hostname": "web"})])["vms"][0]
    converge("vm_set", vms=[{"name": place.name(), "state": "absent"}])
    assert place.files() == sorted([kept, "mine.qcow2"])


@pytest.mark.parametrize("atomic", [True, False])
def test_one_that_fails_in_the_middle(place, converge, atomic):
    """All or none on request; otherwise the others are made. What fails leaves nothing either way."""
    good, bad = item(place, "good"), item(place, "bad")
    bad["cpu"] = {"mode": "custom", "model": "no-such-cpu"}
    bad["state"] = "running"
    failed = place.run("vm_set", fails=True, vms=[good, bad], atomic=atomic)
    assert failed["vms"][1]["failed"] is True and "no-such-cpu" in failed["msg"] and place.name("bad") in failed["msg"]
    assert [d.name() for d in place.domains()] == ([] if atomic else [place.name("good")])
    assert len(place.files()) == (0 if atomic else 1) and failed["changed"] is not atomic
    again = place.run("vm_set", vms=[good], atomic=atomic)
    assert again["changed"] is atomic


@pytest.mark.parametrize("atomic", [True, False])
def test_one_that_is_refused_beforehand(place, atomic):
    """With atomic nothing is touched; without, the others are made."""
    good, bad = item(place, "good"), item(place, "bad", nics=[{"network": "kfit-none"}])
    before = place.snapshot()
    failed = place.run("vm_set", fails=True, vms=[bad, good], atomic=atomic)
    assert failed["reason"] == "unknown_network"
    assert (place.snapshot() == before) is atomic and len(place.domains()) == (0 if atomic else 1)


def test_names_macs_and_addresses_are_given_once(place, converge):
    """Within a request, and against what is on the host."""
    mac = {"network": place.network, "mac": "52:54:00:ee:00:01"}
    address = {"network": place.network, "addresses": ["198.51.100.7/24"]}
    for vms, reason, text in (
        ([item(place, "a"), item(place, "a")], "name_in_use", place.name("a")),
        ([item(place, "a", nics=[mac]), item(place, "b", nics=[mac])], "mac_in_use", "52:54:00:ee:00:01"),
        ([item(place, "a", seed={}, nics=[address]), item(place, "b", seed={}, nics=[address])], "ip_in_use", "198.51.100.7"),
        ([item(place, "a", seed={}, nics=[address, dict(address, addresses=["198.51.100.7/25"])])], "ip_in_use", "198.51.100.7"),
        ([item(place, "a", nics=[mac, dict(mac, mac="52-54-00-EE-00-01")])], "mac_in_use", "52:54:00:ee:00:01"),
    ):
        refused = converge.refused("vm_set", vms=vms)
        assert refused["reason"] == reason and text in refused["msg"]
    converge("vm_set", vms=[item(place, "a", seed={}, nics=[dict(mac, addresses=address["addresses"])])])
    for nic, reason in ((mac, "mac_in_use"), (address, "ip_in_use")):
        refused = converge.refused("vm_set", vms=[item(place, "b", seed={}, nics=[nic])])
        assert refused["reason"] == reason and place.name("a") in refused["msg"]


def test_a_made_up_mac_that_is_taken_gives_way(place, converge):
    """The MAC that a name would get belongs to somebody else."""
    taken = converge("vm_set", vms=[item(place, "a", nics=[{"network": place.network}])])["vms"][0]["nics"][0]["mac"]
    converge("vm_set", vms=[{"name": place.name("a"), "state": "absent"}])
    place.define("foreign", "<interface type='network'><mac address='{0}'/><source network='{1}'/></interface>".format(taken, place.network))
    made = converge("vm_set", vms=[item(place, "a", nics=[{"network": place.network}])])["vms"][0]
    assert made["nics"][0]["mac"] != taken


def test_room_is_exact(lonely):
    """The last MiB, vcpu and byte fit; one more of any does not. Ratios, reserves and totals are what is reckoned with."""
    # What QEMU takes for a VM of up to 512 MiB with a disk and nothing else: 109 MiB, and 8 more for a second vcpu
    params = {"totals": {"vcpus": 3, "memory": "870MiB", "disk": "112MiB"}, "reserved": {"vcpus": 1, "memory": "72MiB", "disk": "16MiB"},
              "ratios": {"vcpus": 2.0, "memory": 0.5, "disk": 1.0}}

    def capacity():
        seen = lonely.run("host_capacity", **params)
        return seen["vcpus"]["available"], seen["memory"]["available_mib"], seen["pools"][lonely.pool]["available_bytes"]
    image = os.stat(lonely.path("image.qcow2")).st_blocks * 512
    assert capacity() == (4, 64 + 335, 96 * MIB - image)
    small = {"vcpus": 1, "memory": "16MiB", "disks": [{"pool": lonely.pool, "size": "16MiB"}]}
    converged = lonely.run("vm_set", vms=[item(lonely, "a", **small)], **params)
    assert converged["changed"] is True and capacity() == (3, 48 + 226, 80 * MIB - image)
    for more, key in (({"vcpus": 4}, "vcpus"), ({"memory": "166MiB"}, "memory"), ({"disks": [{"pool": lonely.pool, "size": "80MiB"}]}, "size")):
        refused = lonely.run("vm_set", fails=True, vms=[item(lonely, "b", **dict(small, **more))], **params)
        assert refused["reason"] == "no_capacity" and refused["error"]["option"] == key and "available" in refused["msg"], refused
    # Two that fit one by one, but not together.
    half = dict(small, memory="32MiB")
    both = [item(lonely, "b", **half), item(lonely, "c", **half)]
    refused = lonely.run("vm_set", fails=True, vms=both, **params)
    assert refused["reason"] == "no_capacity" and len(lonely.domains()) == 1
    partly = lonely.run("vm_set", fails=True, vms=both, atomic=False, **params)
    assert [bool(vm.get("failed")) for vm in partly["vms"]] == [False, True] and len(lonely.domains()) == 2
    lonely.run("vm_set", vms=[item(lonely, "c", **dict(small, memory="16MiB", vcpus=2))], **params)
    assert capacity() == (0, 0, 48 * MIB - image)
    # Growth is asked for like new VMs; shrinking gives room back, and what is there already is no demand.
    for more in ({"vcpus": 2}, {"memory": "17MiB"}, {"disks": [{"size": "80MiB"}]}):
        refused = lonely.run("vm_set", fails=True, vms=[item(lonely, "a", **dict(small, **more))], **params)
        assert refused["reason"] == "no_capacity", refused
    lonely.run("vm_set", vms=[item(lonely, "a", **dict(small, memory="8MiB"))], **params)
    lonely.run("vm_set", vms=[item(lonely, "c", **dict(small, memory="24MiB", vcpus=2))], **params)
    assert capacity()[:2] == (0, 0)
    # A request may be smaller than what the VM may use.
    lonely.run("vm_set", vms=[item(lonely, "c", **dict(small, memory="24MiB", vcpus=2, vcpus_request="500m"))], **params)
    assert capacity()[0] == 1.5
    lonely.run("vm_set", vms=[{"name": lonely.name(short), "state": "absent"} for short in ("a", "b", "c")], **params)
    assert capacity() == (4, 64 + 335, 96 * MIB - image)


def test_claim_build_and_withdraw(place, converge):
    """A claim books all that the VM will occupy and makes nothing; build makes it; withdraw takes back what is not ready."""
    vms = [item(place, short, seed={"hostname": "web"}, nics=[{"network": place.network}]) for short in ("a", "b")]
    claimed = converge("vm_set", step="claim", ticket="t1", vms=vms)
    assert [vm["phase"] for vm in claimed["vms"]] == ["pending", "pending"] and place.files() == []
    meta = metadata(place, "a")
    assert meta.ticket == "t1" and [v.disk for v in meta.volumes] == ["root", "seed"] and meta.volumes[0].size == 16 * MIB
    built = converge("vm_set", step="build", ticket="t1", vms=vms)
    assert [vm["phase"] for vm in built["vms"]] == ["ready", "ready"] and len(place.files()) == 4
    assert metadata(place, "a").ticket is None
    assert converge("vm_set", step="withdraw", ticket="t1", vms=vms)["changed"] is False
    third = [item(place, "c")]
    converge("vm_set", step="claim", ticket="t2", vms=third)
    assert converge("vm_set", step="withdraw", ticket="t1", vms=third)["changed"] is False
    converge("vm_set", step="withdraw", ticket="t2", vms=third)
    assert [d.name() for d in place.domains()] == [place.name("a"), place.name("b")] and len(place.files()) == 4


def test_claims_of_others(place, converge):
    """A fresh one is respected, a stale one removed, a lost one is noticed by its owner."""
    vms = [item(place)]
    converge("vm_set", step="claim", ticket="t1", vms=vms)
    refused = converge.refused("vm_set", step="claim", ticket="t2", vms=vms)
    assert refused["reason"] == "name_in_use"
    tamper(place, "web", claimed="2001-01-01T00:00:00Z")
    identity = place.domain().UUIDString()
    taken = place.run("vm_set", step="claim", ticket="t2", vms=vms)
    assert taken["changed"] is True and metadata(place).ticket == "t2" and place.domain().UUIDString() != identity
    lost = place.run("vm_set", fails=True, step="build", ticket="t1", vms=vms)
    assert lost["reason"] == "claim_lost" and "claim_ttl" in lost["msg"] and metadata(place).phase == "pending"
    place.run("vm_set", step="withdraw", ticket="t2", vms=vms)
    lost = place.run("vm_set", fails=True, step="build", ticket="t2", vms=vms)
    assert lost["reason"] == "claim_lost" and place.domains() == []


def test_taking_back_leaves_the_users_volumes(place):
    """A claim that is withdrawn, one that is too old, and a VM that was just made: a volume that the user gave stays, whatever is to go with the VM."""
    place.make_volume("mine.qcow2", 16 * MIB)
    disks = [{"name": "root", "pool": place.pool, "image": "image.qcow2", "size": "16MiB"},
             {"name": "data", "pool": place.pool, "volume": "mine.qcow2", "delete_with_vm": True}]
    vms = [item(place, disks=disks)]
    place.run("vm_set", step="claim", ticket="t1", vms=vms)
    assert place.run("vm_set", step="withdraw", ticket="t1", vms=[{"name": place.name()}])["changed"] is True
    assert place.domains() == [] and place.files() == ["mine.qcow2"]
    place.run("vm_set", step="claim", ticket="t1", vms=vms)
    made = place.run("vm_set", claim_ttl=-1, vms=vms)["vms"][0]   # the claim is too old at once
    assert made["created"] is True and "mine.qcow2" in place.files()
    other = place.run("vm_set", step="withdraw", ticket="t2", vms=[{"name": place.name(), "uuid": "00000000-0000-4000-8000-000000000001"}])
    assert other["changed"] is False and len(place.domains()) == 1
    assert place.run("vm_set", step="withdraw", ticket="t2", vms=[{"name": place.name(), "uuid": made["uuid"]}])["changed"] is True
    assert place.domains() == [] and place.files() == ["mine.qcow2"]


def test_a_name_that_somebody_else_took_meanwhile_is_no_claim(place):
    """A run that was too slow finds another's VM under the name: it builds nothing, and leaves that VM alone."""
    place.run("vm_set", step="claim", ticket="t1", vms=[item(place)])
    theirs = place.run("vm_set", claim_ttl=-1, vms=[item(place)])["vms"][0]
    before = place.snapshot()
    lost = place.run("vm_set", fails=True, step="build", ticket="t1", claimed=[place.name()], vms=[item(place, description="mine")])
    assert lost["reason"] == "claim_lost" and place.snapshot() == before and theirs["uuid"] == place.domains()[0].UUIDString()


def test_a_claim_leaves_existing_vms_as_they_are(place, converge):
    """Building then converges them."""
    converge("vm_set", vms=[item(place)])
    vms = [item(place, description="new"), item(place, "other")]
    before = place.domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    claimed = converge("vm_set", step="claim", ticket="t1", vms=vms)
    assert [vm["changed"] for vm in claimed["vms"]] == [False, True] and place.domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
    built = converge("vm_set", step="build", ticket="t1", vms=vms)
    assert [vm["changed"] for vm in built["vms"]] == [True, True] and place.xml().findtext("description") == "new"


def test_a_failed_build_withdraws_its_claims(place):
    """Nothing is left of what this run has claimed."""
    good, bad = item(place, "good"), item(place, "bad", state="running", memory="16TiB")
    place.run("vm_set", step="claim", ticket="t1", vms=[good, bad])
    failed = place.run("vm_set", fails=True, step="build", ticket="t1", vms=[good, bad])
    assert failed["changed"] is False and place.domains() == [] and place.files() == []


def test_group_names(place, converge):
    """A domain named VM.NAMESPACE.GROUP has the VM's own label as host name; a VM does not move."""
    name = place.name("web") + ".dev.team1"
    made = converge("vm_set", vms=[dict(item(place, group="team1", namespace="dev", seed={}), name=name)])["vms"][0]
    assert made["name"] == name and made["group"] == "team1"
    refused = converge.refused("vm_set", vms=[dict(item(place, group="team2", namespace="dev", seed={}), name=name)])
    assert refused["reason"] == "not_ours" and "team1" in refused["msg"]
    converge("vm_set", vms=[{"name": name, "state": "absent"}])
    assert place.files() == []


def test_secrets_and_names_in_the_output_of_a_playbook(place, tmp_path):
    """With -vvvv and --diff: names stay legible, secrets appear nowhere."""
    vm = item(place, image="debian:12", graphics={"type": "vnc", "password": "hush-vnc"}, key_name="debian",
              seed={"hostname": "debian", "root_password": "hush-root", "user_data": "#cloud-config\n# hush-data\nlocale: C\n",
                    "users": [{"name": "debian", "password": "hush-user"}], "write_files": [{"path": "/etc/debian", "content": "hush-file"}]})
    bad = dict(vm, seed=dict(vm["seed"], user_data="#cloud-config\nhush-broken: [\n"), name=place.name("bad"))
    task = {"totals": {"vcpus": 4096, "memory": "64TiB"}}
    tasks = [{"kvmfleet.core.vm_set": dict(task, vms=[vm])}, {"kvmfleet.core.vm_set": dict(task, vms=[vm])},
             {"kvmfleet.core.vm_domain": dict(task, name=vm["name"], graphics={"type": "vnc", "password": "hush-oth"})},
             {"kvmfleet.core.vm_set": dict(task, vms=[bad]), "ignore_errors": True}]
    book = tmp_path / "book.json"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}]))
    collections = os.path.abspath(os.path.join(os.path.dirname(_metadata.__file__), *[".."] * 5))
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=collections, ANSIBLE_NOCOLOR="1", ANSIBLE_LOCALHOST_WARNING="0", LIBVIRT_DEFAULT_URI=place.uri)
    output = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-vvvv", "--diff", "-e", json.dumps({"ansible_python_interpreter": sys.executable}),
         str(book)], check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True).stdout
    said = "\n".join(line for line in output.splitlines() if "Origin" not in line)  # the play's own file is not ours to mask
    assert "changed=2" in said and "ignored=1" in said, said
    assert "hush" not in said, [line for line in said.splitlines() if "hush" in line]
    for legible in ('"debian"', "debian:12", "/etc/debian"):
        assert legible in said
    assert "hush" not in place.domain().XMLDesc(0) and "hush" not in metadata(place).__repr__()


@pytest.fixture
def snapshot(place):
    """A VM whose disk has an external snapshot: the VM as it was asked for, and the path of the overlay that it runs on now."""
    vm = item(place)
    place.run("vm_set", vms=[vm])
    place.domain().snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    yield vm, source(place)
    if not place.domain().isActive():
        place.domain().snapshotLookupByName("before").delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)


def source(place):
    """Where the first disk of the VM is."""
    return place.xml().find("devices/disk/source").get("file")


def test_what_was_written_since_an_external_snapshot_is_kept(place, snapshot):
    """The volume below has the older data; a run that pointed the VM at it would lose what came since."""
    vm, top = snapshot
    assert top.endswith(".before")
    before = place.snapshot()
    assert not place.run("vm_set", vms=[vm])["changed"]
    assert place.snapshot() == before
    assert place.run("vm_set", vms=[dict(vm, labels={"a": "b"})])["changed"] and source(place) == top
    larger = dict(vm, disks=[dict(vm["disks"][0], size="32MiB")])
    for check in (True, False):
        refused = place.run("vm_set", vms=[larger], check=check, fails=True)
        assert (refused["reason"], refused["error"]["option"], top in refused["msg"]) == ("disk_moved", "disks[0].size", True)
    assert place.run("vm_set", vms=[dict(vm, state="running")])["changed"] and source(place) == top
    place.domain().destroy()


def test_a_disk_that_was_moved_is_not_moved_back(place, tmp_path):
    vm = item(place)
    place.run("vm_set", vms=[vm])
    old, new = source(place), place.path("elsewhere.qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", old, new], check=True)
    place.conn.defineXML(place.domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(old, new))
    refused = place.run("vm_set", vms=[vm], fails=True)
    assert (refused["reason"], new in refused["msg"], source(place)) == ("disk_moved", True, new)
    assert place.run("vm_set", vms=[{"name": vm["name"], "labels": {"a": "b"}}])["changed"] and source(place) == new


def test_an_image_that_overlays_lie_on_is_attached_for_reading_only(place):
    place.run("vm_set", vms=[item(place, "a")])
    vm = item(place, "b", disks=[{"pool": place.pool, "volume": "image.qcow2"}])
    for check in (True, False):
        refused = place.run("vm_set", vms=[vm], check=check, fails=True)
        assert (refused["reason"], refused["error"]["option"]) == ("volume_in_use", "disks[0].volume")
    assert [d.name() for d in place.domains()] == [place.name("a")]
    assert place.run("vm_set", vms=[dict(vm, disks=[dict(vm["disks"][0], readonly=True)])])["changed"]


def test_a_fault_of_ours_leaves_nothing(place, monkeypatch):
    """What nobody has thought of, too, is a failure of that VM after which the batch is undone."""
    def broken(*_args):
        raise ValueError("embedded null character")
    monkeypatch.setattr(_volume_job, "apply", broken)
    failed = place.run("vm_set", vms=[item(place, "a"), item(place, "b")], fails=True)
    assert failed["reason"] == "internal" and "embedded null character" in failed["msg"]
    assert place.domains() == [] and place.files() == []


def test_a_definition_that_libvirt_ends_late_for_a_killed_run(place, monkeypatch):
    """It was not there when the run looked. The next one sees it."""
    whole = _domain_xml.to_string

    def late(root):
        if not place.domains():
            place.define("web")
        return whole(root)
    monkeypatch.setattr(_domain_xml, "to_string", late)
    failed = place.run("vm_set", vms=[item(place)], fails=True)
    assert (failed["reason"], place.name() in failed["msg"]) == ("busy", True)
    assert [d.name() for d in place.domains()] == [place.name()] and metadata(place) is None and place.files() == []


@pytest.mark.parametrize("moment", ["refresh_if_possible", "volumes"])
def test_a_pool_that_somebody_stops_while_it_is_looked_at(place, monkeypatch, tmp_path, moment):
    """It is passed over: what others do with their pools must not fail our runs."""
    (tmp_path / "pool").mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "pool" / "a.qcow2"), "1M"], check=True)
    other = place.conn.storagePoolCreateXML("<pool type='dir'><name>{0}-other</name><target><path>{1}</path></target></pool>".format(
        place.prefix, tmp_path / "pool"), 0)
    whole, stopped = getattr(_volumes.Pool, moment), []

    def late(pool):
        if pool.name != other.name() or stopped:
            return whole(pool)
        stopped.append(pool.name)
        found = whole(pool) if moment == "volumes" else None
        other.destroy()
        return found if moment == "volumes" else whole(pool)
    monkeypatch.setattr(_volumes.Pool, moment, late)
    place.run("vm_set", vms=[item(place, "a")])
    lower = place.path("image.qcow2")
    assert len(set(_volumes.overlays(place.conn)[lower])) == 1
    assert stopped
