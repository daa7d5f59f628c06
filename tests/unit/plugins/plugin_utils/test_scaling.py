# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a set is scaled: the decision, what holds it back, what is kept of it, and what new members are like."""
from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _request, _scaling, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._keys import Keys
from ansible_collections.kvmfleet.core.plugins.plugin_utils._scaling import Ask, Decision, Found, Member, Note

CATALOGS = Catalogs({
    "kvmfleet_images": {"debian:12": {"volume": "debian.qcow2"}},
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB", "disk": "8GiB", "data_disk": "1GiB"}},
    "kvmfleet_networks": {"lan": {"cidr": "192.0.2.0/24"}, "few": {"cidr": "198.51.100.0/24", "pool": "few"}},
    "kvmfleet_ip_pools": {"few": {"network": "few", "ranges": "198.51.100.10-198.51.100.12"}},
    "kvmfleet_storage_classes": {"ssd": {"pool": "fast"}},
})
HOST = Host("kvm1", networks={"lan": {"bridge": "br0"}, "tagged": {"bridge": "br0", "vlan": 7}, "few": "pooled"}, pool="default")


def vm(index: int, **more: Any) -> Dict[str, Any]:
    """A member as vm_info tells of it."""
    name = "web-{0}".format(index)
    uuid = "{0:08x}-0000-4000-8000-000000000000".format(index)
    made = {"name": name, "uuid": uuid, "managed": True, "phase": "ready", "set": "web", "index": index, "group": None, "namespace": None, "scaling": None,
            "image": "debian:12", "flavor": None, "key_name": None, "labels": {}, "anti_affinity": [], "description": "", "autostart": False,
            "vcpus": 2, "max_vcpus": 2, "memory_mib": 2048, "max_memory_mib": 2048, "vcpus_request": None, "memory_request_mib": None, "arch": "x86_64",
            "firmware": "bios", "virt_type": "kvm", "cpu_mode": "host-model", "boot": ["hd"], "secure_boot": False, "tpm": False, "console": {"type": "none"},
            "disks": [{"name": "root", "format": "qcow2", "bus": "virtio"}, {"name": "seed", "format": "raw", "bus": "virtio"}],
            "volumes": [{"disk": "root", "pool": "default", "name": "{0}-root-{1}.qcow2".format(name, uuid[:8]), "size_bytes": 10 * GIB, "reserve_bytes": None},
                        {"disk": "seed", "pool": "default", "name": "{0}-seed-{1}.iso".format(name, uuid[:8]), "size_bytes": 1 << 20, "reserve_bytes": None}],
            "nics": [{"type": "bridge", "source": "br0", "vlan": None, "model": "virtio"}], "static_addresses": []}
    return dict(made, **more)


def member(index: int, **more: Any) -> Member:
    return Member(index, "web-{0}".format(index), "kvm1", vm(index, **more))


def values(**given: Any) -> Dict[str, Any]:
    return _variables.read("scale", dict({"vm_name": "web"}, **given))


def refused(**given: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        _scaling.ask_of(values(**given))
    return caught.value


@pytest.mark.parametrize(("given", "option", "said"), [
    ({}, "vm_direction", "missing"), ({"vm_direction": "up", "vm_count": 2}, "vm_direction", "together"), ({"vm_direction": "up"}, "vm_max", "missing"),
    ({"vm_direction": "up", "vm_min": 3, "vm_max": 2}, "vm_max", "vm_min"), ({"vm_count": 1, "vm_min": 2}, "vm_count", "vm_min"),
    ({"vm_count": 9, "vm_max": 8}, "vm_count", "vm_max"), ({"vm_count": 2, "vm_alert": "x"}, "vm_alert", "vm_count")])
def test_what_cannot_be_asked_for(given: Dict[str, Any], option: str, said: str) -> None:
    fault = refused(**given)
    assert fault.option == option and said in fault.reason


def test_bounds_of_the_variables() -> None:
    for name, value in (("vm_min", 0), ("vm_step", 0), ("vm_cooldown", -1), ("vm_count", 0)):
        with pytest.raises(SpecError, match=name):
            values(**{name: value})


ALERTS = st.lists(st.sampled_from(["aa", "bb", "cc"]), unique=True).map(tuple)
NUMBERS = st.lists(st.integers(1, 30), unique=True, max_size=12)


@st.composite
def situations(draw: Any) -> Any:
    """What is asked for, the set as it is, and what is kept of the last act."""
    low = draw(st.integers(1, 8))
    high = draw(st.integers(low, 15))
    direction = draw(st.sampled_from(["up", "down", None]))
    alerts = draw(ALERTS) if direction else ()
    ask = Ask(None if direction else draw(st.integers(low, high)), direction, low, high, draw(st.integers(1, 5)), draw(st.integers(0, 600)), alerts)
    taken = draw(NUMBERS)
    cut = draw(st.integers(0, len(taken)))
    found = Found([member(i) for i in sorted(taken[:cut])], dict.fromkeys(taken[cut:], "other"))
    note = draw(st.just(Note()) | st.builds(
        Note, ticket=st.just("f00d"), at=st.just("2026-01-01T00:00:00Z"), age_s=st.none() | st.floats(-1000, 3000), open=st.booleans(),
        acting=ALERTS, alerts=ALERTS))
    return ask, found, note


def after(found: Found, decision: Decision) -> List[int]:
    """The numbers of the members when the decision has been carried out."""
    return sorted({m.index for m in found.members} - {m.index for m in decision.remove} | set(decision.add))


@given(situations())
def test_every_decision(situation: Any) -> None:
    ask, found, note = situation
    size = len(found.members)
    decision = _scaling.decide(ask, found, note)
    result = after(found, decision)
    assert decision.size == size and len(result) == decision.target and decision.acts is (decision.target != size)
    assert not (decision.add and decision.remove) and not set(decision.add) & set(found.occupied)
    if ask.count is not None:
        assert decision.target == ask.count
    elif decision.acts:
        assert abs(decision.target - size) <= ask.step or size < ask.minimum
        # Towards the bounds from outside of them, never past them from inside
        assert decision.target <= max(size, ask.maximum or 0) and decision.target >= min(size, ask.minimum)
        assert (decision.target > size) is (ask.direction == "up")
    # The highest numbers go first
    assert all(m.index > kept for m in decision.remove for kept in result)
    assert [m.index for m in decision.remove] == sorted((m.index for m in decision.remove), reverse=True)
    if found.members:
        assert result == [] or result[0] == found.members[0].index, "the first member, which keeps what all have to see, stays the first"
    assert decision.code and decision.words


@given(situations())
def test_repetitions_act_once(situation: Any) -> None:
    """Whatever was done: what is kept of it holds back the same alert for ever, and every step within the cooldown."""
    ask, found, note = situation
    decision = _scaling.decide(ask, found, note)
    if ask.direction is None or not decision.acts or not found.members:
        return
    kept = dataclasses.asdict(note) if note.ticket else None
    first = dataclasses.replace(found.members[0], vm=dict(found.members[0].vm, scaling=kept))
    noted = _scaling.notes_for(ask, first, note, "beef")
    assert noted["begin"]["scaling"]["expect"] == note.ticket and noted["done"]["scaling"]["expect"] == noted["undone"]["scaling"]["expect"] == "beef"
    there = Found([member(i) for i in after(found, decision)])
    begun = as_note(noted["begin"], 1.0)
    done = as_note(noted["done"], 1.0)
    if ask.alerts:
        assert _scaling.decide(ask, there, begun).code == "alert_done"
        for age in (0.0, 1.0, 1e6):
            assert _scaling.decide(ask, there, dataclasses.replace(done, age_s=age)).code == "alert_done"
        # A run that died is forgotten some day, and so is one that failed at once
        assert not _scaling._held_back(ask, dataclasses.replace(begun, age_s=1e6))
        assert _scaling._held_back(ask, as_note(noted["undone"], 1e6)) is None
    if ask.cooldown_s > 1:
        other = dataclasses.replace(ask, alerts=("dd",))
        assert _scaling.decide(other, there, done).code == _scaling.decide(other, there, begun).code == "cooldown"
    assert _scaling._held_back(dataclasses.replace(ask, alerts=("dd",)), dataclasses.replace(done, age_s=ask.cooldown_s)) is None


def as_note(item: Dict[str, Any], age_s: float) -> Note:
    """What a member keeps that was told this so long ago."""
    kept = item["scaling"]
    if not kept["ticket"]:
        return Note()
    return Note(kept["ticket"], kept.get("at"), age_s, kept.get("open", False), tuple(kept.get("acting", ())), tuple(kept["alerts"]))


def test_why_nothing_is_done() -> None:
    two = Found([member(1), member(2)])
    up, down = Ask(direction="up", maximum=2), Ask(direction="down", minimum=2)
    assert [_scaling.decide(ask, two, Note()).code for ask in (up, down, Ask(count=2))] == ["at_max", "at_min", "as_asked"]
    assert "12 s ago" in _scaling.decide(Ask(direction="up", maximum=9, cooldown_s=60), two, Note("ab", "t", 12.0)).words
    assert _scaling.decide(Ask(count=3), two, Note("ab", "t", 1.0)).add == [3], "a number is carried out whenever it is asked for"
    assert _scaling.decide(Ask(direction="up", maximum=9, alerts=("aa", "bb")), two, Note("ab", "t", 1.0, alerts=("aa",))).add == [3], "bb is new"
    assert _scaling.decide(Ask(direction="up", maximum=9, cooldown_s=60), two, Note("ab", "t", -3600.0)).add == [3], "a clock that was wrong holds up nobody"


def test_alerts_are_kept_as_digests_and_not_for_ever() -> None:
    digest = _scaling.digest("<x/>{{ evil }}\udc80")
    assert len(digest) == 16 and digest == _scaling.digest("<x/>{{ evil }}\udc80") != _scaling.digest("")
    alerts = tuple("{0:04x}".format(i) for i in range(120))
    item = _scaling.notes_for(Ask(direction="up", alerts=("ffff", "0077")), member(1), Note("ab", "t", 1.0, alerts=alerts), "beef")["done"]
    assert item["scaling"]["alerts"] == list(alerts[21:119]) + ["ffff", "0077"]


def test_the_last_act_is_the_latest_that_any_member_knows_of() -> None:
    def kept(age_s: Optional[float], *alerts: str) -> Dict[str, Any]:
        return {"ticket": "{0:x}".format(int(age_s or 0)), "at": "t", "age_s": age_s, "open": False, "acting": [], "alerts": list(alerts)}
    last = _scaling.last_note([member(1), member(2, scaling=kept(50, "a")), member(3, scaling=kept(20, "b")), member(4, scaling=kept(None, "c"))])
    assert (last.age_s, set(last.alerts)) == (20, {"a", "b", "c"})
    assert _scaling.last_note([member(1)]) == Note()


def test_who_is_a_member() -> None:
    found = _scaling.set_of(values(), {"kvm1": [vm(3), vm(1), vm(4, phase="failed"), vm(5, phase="pending"), vm(6, set=None)], "kvm2": [
        vm(7, managed=False, set=None), dict(vm(8), name="web-08"), dict(vm(9), name="web-x"), dict(vm(2), group="acme"), dict(vm(1), name="webb-1")]})
    assert [m.index for m in found.members] == [1, 3] and [m.index for m in found.unfinished] == [5]
    assert set(found.occupied) == {2, 4, 6, 7}
    assert _scaling.free_numbers(found, 3) == [5, 8, 9]
    own = dict(vm(1), name="web-1.default.acme", group="acme", namespace="default")
    assert [m.name for m in _scaling.set_of(values(vm_group="acme"), {"kvm1": [own, vm(1)]}).members] == ["web-1.default.acme"]
    with pytest.raises(SpecError, match="kvm1 and on kvm2"):
        _scaling.set_of(values(), {"kvm1": [vm(1)], "kvm2": [vm(1)]})


def like(first: Optional[Member] = None, members: Optional[List[Member]] = None, **given: Any) -> Dict[str, Any]:
    first = first or member(1)
    found, _notes = _scaling.like_first(first, HOST, members or [first], CATALOGS, values(**given))
    return found


def test_new_members_are_like_the_first() -> None:
    assert like() == {"vm_image": "debian:12", "vm_vcpus": 2, "vm_memory": "2048MiB", "vm_disk": "10GiB", "vm_disks": [], "vm_network": "lan",
                      "vm_seed_format": "nocloud", "vm_ssh_key": "none"}
    rich = member(1, flavor="small", key_name="team", labels={"a": "b"}, description="shop", autostart=True, max_vcpus=4, max_memory_mib=4096,
                  vcpus_request=0.5, memory_request_mib=512, firmware="efi", secure_boot=True, tpm=True, console={"type": "vnc"}, cpu_mode="host-passthrough",
                  anti_affinity=["tier=db"], boot=["network", "hd"], nics=[{"type": "bridge", "source": "br0", "vlan": 7, "model": "e1000"}])
    found = like(rich)
    assert found == {
        "vm_image": "debian:12", "vm_flavor": "small", "vm_vcpus": 2, "vm_max_vcpus": 4, "vm_memory": "2048MiB", "vm_max_memory": "4096MiB",
        "vm_vcpus_request": "0.5", "vm_memory_request": "512MiB", "vm_disk": "10GiB", "vm_disks": [], "vm_labels": {"a": "b"}, "vm_description": "shop",
        "vm_autostart": True, "vm_anti_affinity": ["tier=db"], "vm_firmware": "efi", "vm_secure_boot": True, "vm_tpm": True, "vm_graphics": "vnc",
        "vm_cpu_mode": "host-passthrough", "vm_boot": ["network", "hd"], "vm_networks": [{"network": "tagged", "model": "e1000"}], "vm_seed_format": "nocloud",
        "vm_key_name": "team"}
    wanted = dict(_scaling.filled(values(vm_vcpus=8), found), numbers=[3, 5])
    made = _request.build(wanted, CATALOGS, [HOST], Keys())
    assert [(r.name, r.item["index"], r.item["vcpus"]) for r in made] == [("web-3", 3, 8), ("web-5", 5, 8)]


def test_what_is_given_wins() -> None:
    found = like(vm_flavor="small", vm_network="few", vm_ssh_key="ssh-ed25519 AAAA")
    assert not {"vm_vcpus", "vm_memory", "vm_disk", "vm_disks", "vm_flavor", "vm_ip", "vm_key_name", "vm_ssh_key"} & set(found)
    assert "vm_max_vcpus" not in like(member(1, max_vcpus=4), vm_vcpus=1)


def test_addresses_go_on_with_the_numbers() -> None:
    members = [member(i, static_addresses=["192.0.2.{0}/24".format(9 + i), "2001:db8::{0:x}/64".format(15 + i)]) for i in (2, 3, 5)]
    found = like(members[0], members)
    assert found["vm_ip"] == ["192.0.2.10/24", "2001:db8::10/64"]
    wanted = dict(_scaling.filled(values(), found), numbers=[4, 6], vm_ip=["192.0.2.10/24"])
    made = _request.build(wanted, CATALOGS, [HOST], Keys())
    assert [(r.nics or [])[0].item["addresses"] for r in made] == [["192.0.2.13/24"], ["192.0.2.15/24"]]
    with pytest.raises(SpecError, match="vm_ip.*do not follow"):
        like(members[0], [members[0], member(7, static_addresses=["192.0.2.99/24"])])
    pooled = [{"type": "network", "source": "pooled", "vlan": None, "model": "virtio"}]
    assert like(member(1, nics=pooled, static_addresses=["198.51.100.11/24"]))["vm_network"] == "few"
    assert "vm_ip" not in like(member(1, nics=pooled, static_addresses=["198.51.100.11/24"]))
    assert like(member(1, nics=pooled))["vm_ip"] == ["dhcp"]


def test_disks_and_where_they_are() -> None:
    volumes = vm(1)["volumes"]
    more = dict(volumes[0], disk="data", pool="fast", name="web-1-data-00000001.img", reserve_bytes=GIB)
    disks = vm(1)["disks"] + [{"name": "data", "format": "raw", "bus": "scsi"}]
    found = like(member(1, volumes=volumes + [more], disks=disks))
    assert found["vm_disks"] == [{"name": "data", "size": "10GiB", "storage_class": "ssd", "format": "raw", "bus": "scsi", "reserve": "1GiB"}]
    found = like(member(1, volumes=[dict(volumes[0], pool="fast"), volumes[1], dict(more, pool="default")], disks=disks))
    assert found["vm_storage_class"] == "ssd" and found["vm_disks"][0]["pool"] == "default"
    with pytest.raises(SpecError, match="vm_storage_class.*pool odd of kvm1"):
        like(member(1, volumes=[dict(volumes[0], pool="odd")]))
    shared = member(1, disks=vm(1)["disks"] + [{"name": "iso", "format": "raw", "bus": "sata"}])
    with pytest.raises(SpecError, match="vm_disks.*disk iso of web-1"):
        like(shared)
    assert "vm_disks" not in like(shared, vm_disks=[])


def test_a_network_without_a_name_has_to_be_named() -> None:
    lost = member(1, nics=[{"type": "bridge", "source": "br9", "vlan": None, "model": "virtio"}])
    with pytest.raises(SpecError, match="vm_network.*br9"):
        like(lost)
    assert "vm_network" not in like(lost, vm_network="lan")
    assert like(member(1, nics=[{"type": "network", "source": "default", "vlan": None, "model": "virtio"}]))["vm_network"] == "default"


def test_seeds() -> None:
    bare = member(1, volumes=vm(1)["volumes"][:1], disks=vm(1)["disks"][:1])
    assert like(bare)["vm_seed_format"] == "none"
    assert "vm_seed_format" not in like(bare, vm_packages="vim")
    assert like(bare, vm_ssh_key="none")["vm_seed_format"] == "none", "no key is nothing that needs a seed"
    changed = {"vms": [{"actions": ["change description", "write the cloud-init seed"]}]}
    assert _scaling.differences(changed) == (True, ["description"]) and _scaling.differences({"vms": [{"actions": []}]}) == (False, [])


def test_what_is_said_of_another_seed() -> None:
    """The refusal names what could be missing and what could be wrong, and no value."""
    given = values(vm_root_password="hush", vm_user_data="#!/bin/sh")
    text = str(_scaling.other_seed("web", "web-1", given, {"vm_key_name": "team"}))
    missing, _mark, other = text.partition("another one: ")
    assert "missing: vm_users, " in missing and "vm_packages" in missing and "vm_allow_other_seed=true" in text and "hush" not in text
    assert other.startswith("vm_root_password, vm_user_data)") and "vm_ssh_key," not in text
    assert "missing: vm_ssh_key, vm_users" in str(_scaling.other_seed("web", "web-1", values(), {"vm_ssh_key": "none"}))
