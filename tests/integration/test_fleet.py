# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks over a fleet: three KVM hosts, exact room, hosts that hang, sets that grow and shrink, and VMs that are somebody else's."""
from __future__ import annotations

import re
import subprocess
import time

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks

# A VM that takes one vcpu of room and, not being started, no time.
VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_state": "stopped", "vm_wait": "none", "vm_ssh_key": "none"}
DEADLINE_S = 8
FULL = ("no_capacity", "no_vcpus")  # the second where one host is all there is to choose from


@pytest.fixture
def fleet(lab, tmp_path):
    """Playbooks over three hosts with room for four of C(VM) each."""
    return FleetPlaybooks(lab, tmp_path)


def sizes(lab):
    """How many domains there are on each host."""
    return [len(lab.where().get(host.host, [])) for host in lab.hosts]


def names(lab):
    """The names of all domains, one that two hosts have twice."""
    return sorted(name for listed in lab.where().values() for name in listed)


def test_a_vm_goes_where_there_is_room_and_stays_there(fleet, lab):
    fleet.room((1, 2, 1))
    wide = dict(VM, vm_name="wide", vm_vcpus=2)
    foretold = fleet.does("create_vm", "--check", "--diff", **wide)
    assert (foretold.data["changed"], lab.where(), lab.files()) == (1, {}, [])
    made = fleet.does("create_vm", **wide)
    assert lab.where() == {"kvm2": ["wide"]} and (made.vms["wide"]["host"], foretold.vms["wide"]["host"]) == ("kvm2", "kvm2")
    again = fleet.does("create_vm", **wide)
    assert (again.changed, again.data["changed"], again.vms["wide"]["uuid"]) == (0, 0, made.vms["wide"]["uuid"])
    fleet.room((4, 2, 4))  # there would be more room elsewhere
    assert fleet.does("create_vm", **wide).changed == 0
    grown = fleet.refusal("create_vm", **dict(wide, vm_vcpus=3))
    assert grown.reason in FULL and "kvm2" in grown.message and "wide" in grown.message
    assert "kvm2" in fleet.refuses("create_vm", **dict(wide, vm_host="kvm1"))


def test_a_batch_is_placed_as_a_whole_or_not_at_all(fleet, lab):
    refused = fleet.refusal("create_vm", vm_name="web", vm_count=13, **VM)
    assert refused.reason == "no_capacity" and "vcpu" in refused.message and "13" in refused.message
    made = fleet.does("create_vm", vm_name="web", vm_count=12, **VM)
    assert sizes(lab) == [4, 4, 4] and made.data["changed"] == 12
    assert {name: vm["host"] for name, vm in made.vms.items()} == {name: host for host, listed in lab.where().items() for name in listed}
    assert fleet.does("create_vm", vm_name="web", vm_count=12, **VM).changed == 0
    assert fleet.refusal("create_vm", vm_name="db", **VM).reason == "no_capacity"
    gone = fleet.does("delete_vm", vm_name="web", vm_count=12, vm_confirm=12)
    assert gone.data["changed"] == 12 and (lab.where(), lab.files()) == ({}, [])


def test_a_pinned_host(fleet, lab):
    fleet.room((4, 1, 4))
    fleet.does("create_vm", vm_name="a", vm_host="kvm2", **VM)
    assert lab.where() == {"kvm2": ["a"]}
    full = fleet.refusal("create_vm", vm_name="b", vm_host="kvm2", **VM)
    assert full.reason in FULL and "kvm2" in full.message
    unknown = fleet.refuses("create_vm", vm_name="b", vm_host="kvm4", **VM)
    assert "vm_host" in unknown and "kvm4" in unknown and "kvm3" in unknown
    assert "zone-q" in fleet.refuses("create_vm", vm_name="b", vm_zone="zone-q", **VM)
    with lab["kvm3"].hung():
        dead = fleet.refusal("create_vm", vm_name="b", vm_host="kvm3", vm_capacity_timeout=2, **VM)
        assert "kvm3" in dead.message and dead.reason not in FULL


def test_a_dead_host_costs_one_deadline(fleet, lab):
    """Its VMs may have the name, of which one is warned, or an address of the pool, which is refused."""
    fleet.address_pool(5)
    fleet.room((4, 4, 4))
    start = time.monotonic()
    fleet.does("create_vm", vm_name="before", vm_zone="zone-a", **VM)
    usual_s = time.monotonic() - start
    with lab["kvm2"].hung():
        start = time.monotonic()
        made = fleet.does("create_vm", vm_name="web", vm_count=2, vm_capacity_timeout=DEADLINE_S, **VM)
        assert DEADLINE_S < time.monotonic() - start < usual_s + 1.7 * DEADLINE_S
        assert {vm["host"] for vm in made.vms.values()} <= {"kvm1", "kvm3"} and len(names(lab)) == 3
        assert re.search("kvm2.*did not answer", made.output) and "name" in made.output
        pooled = dict(VM, vm_name="pooled", vm_network="pooled", vm_capacity_timeout=2)
        refused = fleet.refusal("create_vm", **pooled)
        assert refused.reason == "host_unreachable", refused.output
        assert "kvm2" in refused.message and "vm_allow_unreachable" in refused.message
        made = fleet.does("create_vm", vm_allow_unreachable="true", **pooled)
        assert re.match(r"198\.51\.100\.1[0-4]$", made.vms["pooled"]["address"])
        assert "kvm2" in fleet.does("list_vms").output
    assert fleet.does("create_vm", **pooled).changed == 0


def test_all_hosts_dead(fleet, lab):
    with lab["kvm1"].hung(), lab["kvm2"].hung(), lab["kvm3"].hung():
        refused = fleet.refusal("create_vm", vm_name="web", vm_capacity_timeout=2, **VM)
    assert all(host in refused.message for host in ("kvm1", "kvm2", "kvm3"))


def test_a_set_grows_and_shrinks(fleet, lab):
    """Nothing goes without being asked for, the highest number goes first, and only members go: neither somebody's web-10 nor our own web-9."""
    lab["kvm3"].define("web-10")
    fleet.does("create_vm", vm_name="web-9", **VM)
    assert fleet.does("create_vm", vm_name="web", vm_count=3, **VM).data["changed"] == 3
    grown = fleet.does("create_vm", vm_name="web", vm_count=5, **VM)
    assert grown.data["changed"] == 2 and names(lab) == ["web-1", "web-10", "web-2", "web-3", "web-4", "web-5", "web-9"]
    fleet.does("delete_vm", vm_name="web-2")
    before = {name: vm["uuid"] for name, vm in grown.vms.items()}
    filled = fleet.does("create_vm", vm_name="web", vm_count=5, **VM)
    assert filled.data["changed"] == 1 and [n for n, vm in filled.vms.items() if vm["uuid"] != before[n]] == ["web-2"], "the gap is filled, the others stay"

    kept = fleet.does("create_vm", vm_name="web", vm_count=2, **VM)
    assert kept.changed == 0 and "vm_scale_down" in kept.output and len(names(lab)) == 7
    foretold = fleet.does("create_vm", "--check", vm_name="web", vm_count=4, vm_scale_down="true", **VM)
    assert "web-5" in foretold.output and len(names(lab)) == 7
    one = fleet.does("create_vm", vm_name="web", vm_count=4, vm_scale_down="true", **VM)
    assert one.changed == 1 and "web-5" not in names(lab) and len(names(lab)) == 6
    unconfirmed = fleet.refuses("create_vm", vm_name="web", vm_count=2, vm_scale_down="true", **VM)
    assert "2 VMs (web-3, web-4) would be deleted" in unconfirmed and len(names(lab)) == 6
    fleet.does("create_vm", vm_name="web", vm_count=2, vm_scale_down="true", vm_confirm=2, **VM)
    assert names(lab) == ["web-1", "web-10", "web-2", "web-9"] and len(lab.files()) == 6
    assert fleet.does("create_vm", vm_name="web", vm_count=2, vm_scale_down="true", **VM).changed == 0
    assert "web-10" in fleet.refuses("create_vm", vm_name="web", vm_count=10, **VM), "a name that somebody else has"


def test_selectors(fleet, lab):
    for number, host in enumerate(("kvm1", "kvm2", "kvm3"), 1):
        fleet.does("create_vm", vm_name="web{0}".format(number), vm_host=host, vm_labels="tier=front,n={0}".format(number), **VM)
    fleet.does("create_vm", vm_name="db", vm_zone="zone-b", vm_labels="tier=back", vm_group="acme", **VM)
    assert lab.where() == {"kvm1": ["web1"], "kvm2": ["db.default.acme", "web2"], "kvm3": ["web3"]}

    for given, found in (({"vm_zone": "zone-b"}, ["db.default.acme", "web2"]), ({"vm_region": "here"}, ["db.default.acme", "web1", "web2", "web3"]),
                         ({"vm_group": "acme"}, ["db.default.acme"]), ({"vm_labels": "tier=front"}, ["web1", "web2", "web3"]),
                         ({"vm_name": "web[13]", "vm_labels": "tier=front"}, ["web1", "web3"]), ({"vm_zone": "zone-c", "vm_name": "db*"}, [])):
        assert sorted(fleet.does("list_vms", **given).vms) == found, given

    started = fleet.does("power_vm", vm_name="web*", vm_zone="zone-a", vm_action="start")
    assert [vm["state"] for vm in started.vms.values()] == ["running"] and [d.isActive() for h in lab.hosts for d in h.domains()].count(1) == 1
    both = fleet.does("power_vm", vm_labels="tier=front", vm_region="here", vm_action="force_off")
    assert sorted(both.vms) == ["web1", "web2", "web3"] and not any(d.isActive() for h in lab.hosts for d in h.domains())

    for given, count in (({"vm_labels": "tier=front"}, 3), ({"vm_name": "*", "vm_zone": "zone-b"}, 2)):
        assert "vm_confirm={0}".format(count) in fleet.refuses("delete_vm", **given)
        assert "vm_confirm={0}".format(count) in fleet.refuses("delete_vm", vm_confirm=count + 1, **given)
    assert fleet.does("delete_vm", vm_labels="tier=front", vm_zone="zone-a").data["changed"] == 1
    assert fleet.does("delete_vm", vm_group="acme").data["changed"] == 1
    assert fleet.does("delete_vm", vm_name="web*", vm_confirm=2).data["changed"] == 2
    assert (lab.where(), lab.files()) == ({}, [])


def test_another_groups_vm_is_refused(fleet, lab):
    """Also where its name says something else than its metadata."""
    fleet.does("create_vm", vm_name="web", vm_group="acme", vm_host="kvm1", **VM)
    fleet.does("create_vm", vm_name="odd", vm_group="acme", vm_host="kvm2", **VM)
    lab["kvm2"].conn.lookupByName("odd.default.acme").rename("odd.default.other")
    for name in ("web.default.acme", "odd.default.other"):
        assert "other" in fleet.refuses("delete_vm", vm_name=name, vm_group="other")
        assert "other" in fleet.refuses("power_vm", vm_name=name, vm_group="other", vm_action="start")
        listed = fleet.run("list_vms", vm_name=name, vm_group="other")
        assert listed.code != 0 or listed.data["vms"] == []
    assert [vm["name"] for vm in fleet.does("list_vms", vm_group="other").data["vms"]] == []
    assert "acme" in fleet.refuses("create_vm", vm_name="odd", vm_group="other", **VM)
    assert fleet.does("delete_vm", vm_name="*", vm_group="other").changed == 0
    both = fleet.does("create_vm", vm_name="web", vm_group="other", **VM)
    assert list(both.vms) == ["web.default.other"] and names(lab) == ["odd.default.other", "web.default.acme", "web.default.other"]


@pytest.mark.parametrize("more", [{}, {"vm_network": "pooled", "vm_count": 2}], ids=["one", "set with addresses"])
def test_one_name_by_two_runs_at_once(fleet, lab, more):
    """Placed by load each run would take another host; in the end there is one VM of the name, and whoever did not make it found it or was told to wait."""
    fleet.address_pool(4)
    fleet.room((4, 4, 4))
    given = dict(VM, vm_name="web", **more)
    started = [fleet.start("create_vm", **dict(given, vm_strategy=strategy)) for strategy in ("spread", "pack", "round_robin")]
    runs = [run.wait() for run in started]
    wanted = ["web-1", "web-2"] if more else ["web"]
    assert names(lab) == wanted and len(lab.files()) == 2 * len(wanted), [run.output for run in runs]
    assert [run.code for run in runs].count(0) >= 1
    for run in runs:
        if run.code:
            assert run.reason in ("busy", "name_in_use", "host_busy"), run.output
    assert {meta.phase for _name, meta in lab.ours()} == {"ready"}
    assert fleet.does("create_vm", **given).changed == 0


@pytest.mark.parametrize(("given", "reason", "words"), [
    ({"vm_vcpus": 5}, "no_capacity", ("web", "5 vcpus", "nearest miss", "kvm")), ({"vm_host": "kvm9"}, "unknown_host", ("vm_host", "kvm9", "kvm3 was meant")),
    ({"vm_zone": "zone-x"}, "unknown_zone", ("vm_zone", "zone-x", "was meant")), ({"vm_host": "kvm1", "vm_zone": "zone-b"}, "unknown_zone", ("kvm1", "zone-b")),
    ({"vm_affinity": "db", "vm_anti_affinity": "db"}, "contradictory_affinity", ("web", "VM db")),
    ({"vm_affinity": "nobody"}, "affinity", ("nobody", "nowhere")),
    ({"vm_group": "acme", "vm_count": 3}, "quota_vms", ("acme", "2 VMs allowed", "0 used", "3 more asked")),
    ({"vm_group": "frozen"}, "group_locked", ("vm_group", "frozen", "locked")),
    ({"vm_network": "pooled", "vm_ip": "198.51.100.200"}, "address_outside", ("vm_ip", "few")),
    ({"vm_network": "pooled", "vm_count": 3}, "pool_exhausted", ("few", "2 addresses", "3 asked")), ({"vm_count": 0}, "out_of_range", ("vm_count", "0")),
    ({"vm_host_labels": "disk=nvme"}, "label_mismatch", ("disk=nvme", "kvm1")), ({"vm_count": 4, "vm_max_per_host": 1}, "max_per_host", ("web-1", "3")),
])
def test_every_refusal_names_what_it_is_about(fleet, lab, given, reason, words):
    """VM or variable, host and rule, by one message; nothing is touched."""
    fleet.address_pool(2)
    fleet.catalogs["kvmfleet_groups"] = {"acme": {"quota": {"vms": 2}}, "frozen": {"locked": True}}
    fleet.room((4, 4, 4))
    refused = fleet.refusal("create_vm", **dict(VM, vm_name="web", **given))
    assert all(word in refused.message for word in words), refused.message
    assert refused.reason == reason or reason == "out_of_range", refused.reason
    assert (lab.where(), lab.files()) == ({}, [])


def test_one_host_under_two_names(fleet, lab):
    fleet.does("create_vm", vm_name="web", vm_host="kvm1", **VM)
    twin = lab["kvm1"].variables(kvm_totals={"vcpus": 4, "memory": "1TiB", "disk": "1TiB"})
    fleet.inventory({"kvm1": twin, "alias": dict(twin)})
    refused = fleet.refusal("create_vm", vm_name="db", **VM)
    assert refused.reason == "duplicate_host" and all(word in refused.message for word in ("alias", "kvm1", "web"))


def test_one_static_address_by_two_runs_at_once(fleet, lab):
    """Two hosts cannot know of each other; the runs do."""
    started = [fleet.start("create_vm", vm_name=name, vm_ip="192.0.2.50", **VM) for name in ("one", "other")]
    runs = [run.wait() for run in started]
    assert sorted(run.code == 0 for run in runs) == [False, True], [run.output for run in runs]
    assert [run.reason for run in runs if run.code] == ["ip_in_use"]
    assert len(names(lab)) == 1 and len(lab.files()) == 2
    late = fleet.refusal("create_vm", vm_name="third", vm_ip="192.0.2.50", **VM)
    assert late.reason == "ip_in_use" and names(lab)[0] in late.message


@pytest.mark.long
@pytest.mark.parametrize("task", ["Place the VMs", "Settle who has what"])
def test_a_host_that_hangs_on_the_way(fleet, lab, task):
    """Before the claim others are taken; later the batch is undone, but for a claim on the host itself, which the next run takes away."""
    given = dict(VM, vm_name="web", vm_count=6, vm_claim_ttl=5)
    run = fleet.start("create_vm", vm_capacity_timeout=5, **given)
    while "TASK [kvmfleet.core.vm : " + task not in run.output:
        assert run.process.poll() is None, run.output
        time.sleep(0.02)
    with lab["kvm2"].hung():
        done = run.wait(300)
    if done.code:
        assert done.reason == "host_unreachable" and set(lab.where()) <= {"kvm2"} and lab.files() == [], done.output
    else:
        assert sizes(lab) == [3, 0, 3]
    again = fleet.does("create_vm", **given)
    assert len(again.vms) == 6 and len(names(lab)) == 6 and {meta.phase for _name, meta in lab.ours()} == {"ready"} and lab.residue() == []


def test_a_batch_that_fails_on_one_host_while_it_is_built_is_undone_on_all(fleet, lab):
    """A volume that cannot be made where the disk is full in truth: what other hosts have made by then goes again."""
    target = lab["kvm2"].target
    before = lab.snapshot()
    if subprocess.run(["chattr", "+i", target], check=False).returncode:
        pytest.skip("the file system under {0} knows no immutable folders".format(target))
    try:
        failed = fleet.run("create_vm", vm_name="web", vm_count=3, vm_max_per_host=1, **VM)
    finally:
        subprocess.run(["chattr", "-i", target], check=True)
    assert failed.code != 0 and "kvm2" in failed.message and failed.output.count("undone") >= 2, failed.output
    assert lab.snapshot() == before and lab.residue() == []
    assert fleet.does("create_vm", vm_name="web", vm_count=3, vm_max_per_host=1, **VM).data["changed"] == 3


@pytest.mark.parametrize("limit", ["quota", "max_vms"])
def test_limits_that_no_single_host_knows_by_two_runs_at_once(fleet, lab, limit):
    """A quota is summed over the fleet, and what VMs there are on a host is counted like its room."""
    more = {}
    if limit == "quota":
        fleet.catalogs["kvmfleet_groups"] = {"acme": {"quota": {"vms": 3}}}
        fleet.room((4, 4, 4))
        more["vm_group"] = "acme"
    else:
        fleet.room((4, 4, 4), **{host.host: {"kvm_max_vms": 1} for host in lab.hosts})
    started = [fleet.start("create_vm", vm_name=name, vm_count=2, **dict(VM, **more)) for name in ("one", "other")]
    runs = [run.wait() for run in started]
    assert sorted(run.code == 0 for run in runs) == [False, True], [lab.where()] + [run.output for run in runs]
    assert [run.reason for run in runs if run.code] in (["quota_vms"], ["max_vms"], ["no_capacity"], ["busy"])
    assert len(names(lab)) == 2 and lab.residue() == []


def test_a_host_that_is_silent_at_the_second_reading(fleet, lab):
    """It may have given out the address since it was asked first."""
    fleet.address_pool(4)
    fleet.room((4, 0, 4))
    run = fleet.start("create_vm", vm_capacity_timeout=5, **dict(VM, vm_name="web", vm_network="pooled"))
    while "TASK [kvmfleet.core.vm : Claim room]" not in run.output:
        assert run.process.poll() is None, run.output
        time.sleep(0.02)
    with lab["kvm2"].hung():
        done = run.wait(300)
    assert done.code and done.reason == "host_unreachable" and "kvm2" in done.message, done.output
    assert (lab.where(), lab.files()) == ({}, [])


def test_a_refusal_is_told_although_there_are_secrets(fleet, lab):
    """What is hidden is the request, not the reason; and neither shows a secret, however talkative Ansible is."""
    secret = {"vm_root_password": "SECRETroot", "vm_users": [{"name": "alice", "password": "SECRETuser"}]}
    refused = fleet.refusal("create_vm", variables=secret, vm_name="web", **dict(VM, vm_vcpus=5))
    assert refused.reason == "no_capacity" and "5 vcpus" in refused.message
    loud = fleet.run("create_vm", "-vvv", variables=secret, vm_name="web", **dict(VM, vm_vcpus=5))
    assert "5 vcpus" in loud.output and "SECRET" not in loud.output + refused.output
    made = fleet.does("create_vm", "-vvv", variables=secret, vm_name="web", **VM)
    assert made.data["changed"] == 1 and "SECRET" not in made.output
    assert not any("SECRET" in domain.XMLDesc() for host in lab.hosts for domain in host.domains())


@pytest.mark.parametrize(("play", "option"), [({"serial": 1}, "serial"), ({"strategy": "free"}, "strategy")])
def test_plays_that_tear_the_hosts_apart_are_refused(fleet, lab, play, option):
    role = {"ansible.builtin.import_role": {"name": "kvmfleet.core.vm", "tasks_from": "create", "rolespec_validate": False}, "name": "Create"}
    (fleet.folder / "own.yml").write_text(yaml.safe_dump([dict({"name": "Own", "hosts": "kvm_hosts", "gather_facts": False, "tasks": [role]}, **play)]))
    run = fleet.run(str(fleet.folder / "own.yml"), vm_name="web", vm_key_dir=fleet.keys, **VM)
    assert run.code != 0 and "{0}".format(option) in run.output and "for all of them at once" in run.output or "hear all of them first" in run.output
    assert lab.where() == {}
