# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as a user runs them: ansible-playbook, -e, a table, and nothing left behind."""
from __future__ import annotations

import email
import os
import re
import stat
import subprocess
import xml.etree.ElementTree as ET

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import IMAGE, Playbooks

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me@laptop"
SECRETS = {"vm_root_password": "SECRETroot", "vm_user_data": "#cloud-config\nchpasswd: {list: 'x:SECRETdata'}\n",
           "vm_users": [{"name": "alice", "password": "SECRETuser"}], "vm_write_files": [{"path": "/etc/x", "content": "SECRETfile"}]}


@pytest.fixture
def playbooks(place, tmp_path):
    return Playbooks(place, tmp_path)


@pytest.fixture
def stopped(playbooks):
    """Variables of a small VM that is not started."""
    return {"vm_image": IMAGE, "vm_memory": "64MiB", "vm_vcpus": "1", "vm_state": "stopped", "vm_wait": "none"}


def test_life_of_a_set(playbooks, place, stopped):
    name = place.name("web")
    foretold = playbooks.does("create_vm", "--check", vm_name=name, vm_count="3", **stopped)
    assert (foretold.changed, place.domains(), place.files(), playbooks.keys.exists()) == (1, [], [], False)
    made = playbooks.does("create_vm", vm_name=name, vm_count="3", **stopped)
    names = ["{0}-{1}".format(name, i) for i in (1, 2, 3)]
    assert made.changed == 1 and list(made.vms) == names and made.data["changed"] == 3
    assert [d.name() for d in place.domains()] == names and len(place.files()) == 6
    fewer = playbooks.does("create_vm", vm_name=name, vm_count="2", **stopped)
    assert fewer.changed == 0 and "{0}-3 of the set stays".format(name) in fewer.output and len(place.domains()) == 3
    for vm in made.vms.values():
        assert vm["uuid"] == place.conn.lookupByName(vm["name"]).UUIDString()
        assert (vm["host"], vm["state"], vm["vcpus"], vm["memory_mib"], vm["key_name"], vm["set"]) == ("local", "stopped", 1, 64, name, name)
        assert re.search(r"^{0} +local +stopped +created +1 +64 MiB +- +{1} +{2}".format(vm["name"], vm["uuid"], name), made.output, re.MULTILINE)
    assert foretold.data["changed"] == 3 and "would be created" in foretold.output

    again = playbooks.does("create_vm", vm_name=name, vm_count="3", **stopped)
    assert (again.changed, again.data["changed"]) == (0, 0) and {vm["uuid"] for vm in again.vms.values()} == {vm["uuid"] for vm in made.vms.values()}

    listed = playbooks.does("list_vms", vm_name=place.prefix + "-*")
    assert list(listed.vms) == names and listed.changed == 0 and "3 VMs: 3 stopped" in listed.output

    assert "vm_confirm=3" in playbooks.refuses("delete_vm", vm_name=name + "-*")
    assert "vm_confirm" in playbooks.refuses("delete_vm", vm_name=name, vm_count="3", vm_confirm="2")
    foretold = playbooks.does("delete_vm", "--check", vm_name=name, vm_count="3", vm_confirm="3")
    assert foretold.data["changed"] == 3 and len(place.domains()) == 3 and "would be deleted" in foretold.output
    gone = playbooks.does("delete_vm", vm_name=name + "-*", vm_confirm="3")
    assert gone.data["changed"] == 3 and (place.domains(), place.files()) == ([], [])
    for given in ({"vm_name": name, "vm_count": "3", "vm_confirm": "3"}, {"vm_name": name + "-*", "vm_confirm": "3"}):
        assert playbooks.does("delete_vm", **given).changed == 0


def test_by_fqcn_with_strings_for_everything(playbooks, place):
    name = place.name("all")
    given = {
        "vm_name": name, "vm_count": "1", "vm_flavor": "tiny", "vm_image": IMAGE, "vm_state": "stopped", "vm_ip": "192.0.2.10",
        "vm_ssh_key": KEY,
        "vm_max_vcpus": "2", "vm_max_memory": "128MiB", "vm_vcpus_request": "500m", "vm_memory_request": "32MiB", "vm_disks": "16MiB,32MiB",
        "vm_autostart": "yes", "vm_graphics": "vnc", "vm_labels": "role=web,tier=front", "vm_allow_restart": "true", "vm_force": "no", "vm_adopt": "false",
        "vm_delete_disks": "on",
        "vm_shutdown_timeout": "5", "vm_wait_timeout": "7", "vm_packages": "vim,git", "vm_users": "alice", "vm_timezone": "Europe/Berlin",
        "vm_boot": "hd,network",
        "vm_firmware": "bios", "vm_machine": "q35", "vm_nameservers": "192.0.2.53", "vm_mac": "52:54:00:12:34:56", "vm_description": "a test",
    }
    made = playbooks.does("kvmfleet.core.create_vm", **given)
    vm = made.vms[name + "-1"]
    assert (vm["vcpus"], vm["max_vcpus"], vm["memory_mib"], vm["max_memory_mib"], vm["autostart"] if "autostart" in vm else True) == (1, 2, 64, 128, True)
    assert vm["labels"] == {"role": "web", "tier": "front"} and vm["address"] == "192.0.2.10" and vm["ssh"] == "ssh debian@192.0.2.10"
    assert [d["size_bytes"] for d in vm["disks"] if d["name"] != "seed"] == [16 << 20, 16 << 20, 32 << 20]
    assert place.conn.lookupByName(name + "-1").autostart() == 1 and not playbooks.keys.exists()
    assert playbooks.does("kvmfleet.core.create_vm", **given).changed == 0
    playbooks.does("kvmfleet.core.delete_vm", vm_labels="role=web", vm_name=place.prefix + "-*")
    assert (place.domains(), place.files()) == ([], [])


def test_power(playbooks, place, stopped):
    name = place.name("power")
    playbooks.does("create_vm", vm_name=name, vm_count="2", **stopped)
    foretold = playbooks.does("power_vm", "--check", vm_name=name + "-1", vm_action="start")
    assert (foretold.changed, place.domain("power-1").isActive()) == (1, 0) and "would start" in foretold.output
    for action, state in (("start", "running"), ("pause", "paused"), ("force-off", "stopped")):
        run = playbooks.does("power_vm", vm_name=name + "-1", vm_action=action)
        assert (run.changed, run.vms[name + "-1"]["state"]) == (1, state)
    run = playbooks.does("power_vm", vm_name=name + "-*", vm_action="start")
    assert [vm["state"] for vm in run.vms.values()] == ["running", "running"]
    assert playbooks.does("power_vm", vm_name=name, vm_count="2", vm_action="start").changed == 0
    stubborn = playbooks.run("power_vm", vm_name=name + "-1", vm_action="shutdown", vm_shutdown_timeout="1")
    assert stubborn.code != 0 and name + "-1" in stubborn.message and "vm_force" in stubborn.message.replace("force: true", "vm_force")
    run = playbooks.does("power_vm", vm_name=name + "-1", vm_action="shutdown", vm_shutdown_timeout="1", vm_force="yes")
    assert run.vms[name + "-1"]["state"] == "stopped"
    assert "vm_name" in playbooks.refuses("power_vm", vm_name=place.name("nobody"), vm_action="start")
    assert "vm_action" in playbooks.refuses("power_vm", vm_name=name, vm_action="fly")


def test_a_key_pair_is_made_once_and_never_shown(playbooks, place, stopped):
    name = place.name("key")
    first = playbooks.does("create_vm", "-vvvv", vm_name=name, **stopped)
    private = playbooks.keys / name
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and "Private key: {0}".format(private) in first.output
    assert private.read_text().splitlines()[1] not in first.output
    kept = private.read_bytes()
    assert playbooks.does("create_vm", vm_name=name, **stopped).changed == 0
    assert private.read_bytes() == kept
    assert "vm_ssh_key" in playbooks.refuses("create_vm", vm_name=place.name("awx"), environment={"AWX_JOB_ID": "1"}, **stopped)


def test_groups_keep_to_themselves(playbooks, place, stopped):
    name = place.name("web")
    made = playbooks.does("create_vm", vm_name=name, vm_group="acme", **stopped)
    full = name + ".default.acme"
    assert list(made.vms) == [full] and made.vms[full]["group"] == "acme"
    assert playbooks.does("delete_vm", vm_name=name + "*", vm_group="other").changed == 0
    assert list(playbooks.does("list_vms", vm_group="acme", vm_name=name).vms) == [full]
    assert "other" in playbooks.refuses("delete_vm", vm_name=full, vm_group="other")
    assert "other" in playbooks.refuses("power_vm", vm_name=full, vm_group="other", vm_action="start")


def test_changes_say_what_waits_for_a_restart(playbooks, place, stopped):
    name = place.name("grow")
    running = dict(stopped, vm_state="running")
    playbooks.does("create_vm", vm_name=name, **running)
    grown = playbooks.does("create_vm", vm_name=name, **dict(running, vm_memory="96MiB", vm_disk="32MiB"))
    assert grown.vms[name]["restart_required"] and "next restart" in grown.output
    assert [d["size_bytes"] for d in grown.vms[name]["disks"] if d["name"] == "root"] == [32 << 20]
    kept = playbooks.does("create_vm", vm_name=name, vm_image=IMAGE, vm_wait="none")
    assert kept.vms[name]["memory_mib"] == 96 and kept.data["changed"] == 0, "what nobody asks for stays as it is"
    message = playbooks.refuses("create_vm", vm_name=name, **dict(running, vm_memory="96MiB", vm_disk="16MiB"))
    assert message.count("vm_disk") == 1


def test_secrets_are_in_the_seed_and_nowhere_else(playbooks, place, stopped):
    name = place.name("secret")
    for given, good in (({}, True), ({"vm_memory": "2"}, False), ({"vm_memory": "9000TiB"}, False), ({"vm_network": "lost", "vm_state": "running"}, False)):
        run = playbooks.run("create_vm", "-vvvv", "--diff", vm_name=name, variables=SECRETS, **dict(stopped, **given))
        assert (run.code == 0) is good, run.output
        assert "SECRET" not in run.output
        assert IMAGE in run.output and "debian@" not in run.output.replace("debian@192", "")
    seed = next(f for f in place.files() if "-seed-" in f)
    with open(place.path(seed), "rb") as stream:
        content = stream.read()
    parts = email.message_from_bytes(content[content.index(b"Content-Type: multipart"):]).walk()
    assert b"SECRETdata" in b"".join(part.get_payload(decode=True) or b"" for part in parts), "or else nothing was tested"
    assert stat.S_IMODE(os.stat(place.path(seed)).st_mode) == 0o600


@pytest.mark.parametrize("given, parts", [
    pytest.param({"vm_memroy": "1GiB"}, ["vm_memroy", "vm_memory"], id="mistyped variable"),
    pytest.param({"vm_memory": "100TiB"}, ["vm_memory", "MiB of memory"], id="memory above host"),
    pytest.param({"vm_network": "lost", "vm_state": "running"}, ["kfit-no-such-net"], id="network gone from the host"),
    pytest.param({"vm_storage_class": "gone"}, ["kfit-no-such-pool"], id="pool gone from the host"),
])
def test_bad_input_is_one_message_and_touches_nothing(playbooks, place, stopped, given, parts):
    message = playbooks.refuses("create_vm", **dict(stopped, **dict({"vm_name": place.name("bad")}, **given)))
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_vm_that_is_not_ours_is_refused(playbooks, place, stopped):
    place.define("theirs")
    assert "not ours" in playbooks.refuses("create_vm", vm_name=place.name("theirs"), **stopped)
    assert "not ours" in playbooks.refuses("delete_vm", vm_name=place.name("theirs"))
    playbooks.refuses("power_vm", vm_name=place.name("theirs"), vm_action="start")
    assert playbooks.does("list_vms", vm_name=place.prefix + "-*").data["vms"] == []
    assert list(playbooks.does("list_vms", vm_name=place.prefix + "-*", vm_managed_only="no").vms) == [place.name("theirs")]


def test_vms_of_one_name_on_two_hosts_are_counted_as_two(playbooks, place, stopped):
    """Both hosts are the same libvirt, which is as good as two that have a VM of that name each."""
    name = place.name("web")
    playbooks.does("create_vm", vm_name=name, **stopped)
    playbooks.inventory({"one": playbooks.host, "two": playbooks.host})
    for wanted in (name, place.prefix + "-*"):
        assert "2 VMs" in playbooks.refuses("delete_vm", vm_name=wanted)
        assert "2 VMs" in playbooks.refuses("delete_vm", vm_name=wanted, vm_confirm="1")
    assert playbooks.does("delete_vm", vm_name=name, vm_host="two").data["changed"] == 1 and place.domains() == []
    assert playbooks.does("delete_vm", vm_name=name).data["changed"] == 0


def test_what_nobody_asked_for_stays_as_it_is(playbooks, place, stopped):
    """Neither the default NIC nor the default root disk is for a VM that exists: one on another network, and one that somebody else made."""
    playbooks.host["kvm_networks"]["other"] = {"bridge": place.bridge}
    playbooks.catalogs["kvmfleet_networks"]["other"] = {}
    playbooks.inventory({"local": playbooks.host})
    playbooks.does("create_vm", vm_name=place.name("web"), vm_network="other", **stopped)
    place.define("theirs", "<disk type='file' device='disk'><source file='{0}'/><target dev='vda' bus='virtio'/></disk>"
                           "<interface type='user'><model type='e1000'/></interface>".format(place.make_volume("theirs.qcow2", 1 << 20)))
    before = {short: [ET.tostring(e) for e in place.xml(short).iter() if e.tag in ("interface", "disk")] for short in ("web", "theirs")}
    files = place.files()
    assert playbooks.does("create_vm", vm_name=place.name("web"), **stopped).changed == 0
    adopted = dict(vm_name=place.name("theirs"), vm_adopt="true", vm_state="stopped")
    assert playbooks.does("create_vm", **adopted).changed == 1
    assert playbooks.does("create_vm", **adopted).changed == 0
    assert before == {short: [ET.tostring(e) for e in place.xml(short).iter() if e.tag in ("interface", "disk")] for short in before}
    assert place.files() == files


def test_a_vm_of_any_name_is_taken_over(playbooks, place, stopped):
    """Those that virt-manager and others have made are seldom called by a host name label. What is new still is."""
    names = [place.name(short) for short in ("Win_Server", "My ünit+1.example.org")]
    for name in names:
        place.define(name[len(place.name("")):])
    assert "vm_name = '{0}'".format(names[0]) in playbooks.refuses("create_vm", vm_name=names[0], **stopped)
    missing = playbooks.refusal("create_vm", vm_name=place.name("Not_There"), vm_adopt="true", vm_memory="64MiB", vm_state="stopped")
    assert missing.reason == "unknown_vm" and "no such VM to take over" in missing.message
    before = {name: place.conn.lookupByName(name).UUIDString() for name in names}
    for name in names:
        adopted = dict(vm_name=name, vm_adopt="true", vm_state="stopped")
        assert [playbooks.does("create_vm", **adopted).changed for _time in range(2)] == [1, 0]
    assert set(playbooks.does("list_vms", vm_name=place.name("*[_.+]*")).vms) == set(names)
    # What is made for them later has a name of its own that every tool takes
    odd = names[1]
    playbooks.does("create_vm", vm_name=odd, vm_adopt="true", vm_state="stopped", variables={"vm_disks": ["16MiB"]})
    assert [name for name in place.files() if re.match(r"^[A-Za-z0-9._-]+-data-[0-9a-f]{8}[.]qcow2$", name)], place.files()
    playbooks.does("power_vm", vm_name=odd, vm_action="start")
    assert place.conn.lookupByName(odd).isActive() and not place.conn.lookupByName(names[0]).isActive()
    playbooks.does("power_vm", vm_name=odd, vm_action="force_off")
    assert before == {name: place.conn.lookupByName(name).UUIDString() for name in names}
    assert playbooks.does("delete_vm", vm_name=",".join(names), vm_confirm=2).data["changed"] == 2
    assert (place.domains(), [name for name in place.files() if "-data-" in name]) == ([], [])


def test_a_vm_that_is_renamed_joins_a_group(playbooks, place, stopped):
    """As docs/migration.md says it; and it is that group's alone."""
    place.define("Old_1")
    place.conn.lookupByName(place.name("Old_1")).rename(place.name("old.default.red"))
    mine = dict(vm_name=place.name("old"), vm_group="red")
    made = [playbooks.does("create_vm", vm_adopt="true", vm_state="stopped", **mine) for _time in range(2)]
    assert [run.changed for run in made] == [1, 0] and made[0].vms[place.name("old.default.red")]["group"] == "red"
    assert list(playbooks.does("list_vms", vm_group="red", vm_name=place.name("*")).vms) == [place.name("old.default.red")]
    theirs = playbooks.refusal("power_vm", vm_name=place.name("old.default.red"), vm_group="blue", vm_action="start")
    assert theirs.reason == "not_ours"
    assert playbooks.does("delete_vm", **mine).data["changed"] == 1 and place.domains() == []


def test_a_dead_host_is_reported(playbooks, place, stopped):
    dead = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
    playbooks.inventory({"local": playbooks.host, "dead": dead})
    made = playbooks.does("create_vm", vm_name=place.name("web"), **stopped)
    assert (made.vms[place.name("web")]["host"], made.vms[place.name("web")]["result"]) == ("local", "created")
    assert made.data["unreachable"] == ["dead"] and "dead did not answer" in made.output
    listed = playbooks.does("list_vms", vm_name=place.prefix + "-*")
    assert list(listed.vms) == [place.name("web")] and listed.data["unreachable"] == ["dead"] and "unreachable" in listed.output
    assert "dead" in playbooks.refuses("create_vm", vm_name=place.name("db"), vm_host="dead", **stopped)
    assert "dead" in playbooks.refuses("delete_vm", vm_name=place.prefix + "-*")


def test_a_missing_image_is_fetched_on_the_way(playbooks, place, stopped):
    source = playbooks.folder / "source.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(source), "8M"], check=True)
    playbooks.catalogs["kvmfleet_images"]["copied:1"] = {"source": "path", "path": str(source), "min_disk": "16MiB"}
    playbooks.inventory({"local": playbooks.host})
    given = dict(stopped, vm_name=place.name("web"), vm_image="copied:1")
    foretold = playbooks.does("create_vm", "--check", **given)
    assert "copied:1 would be made available first" in foretold.output and (foretold.data["changed"], place.domains(), place.files()) == (1, [], [])
    made = playbooks.does("create_vm", **given)
    assert made.data["changed"] == 1 and [f for f in place.files() if f.startswith("base-copied-1-")]
    assert playbooks.does("create_vm", **given).changed == 0


def test_the_role_by_itself_with_ansibles_own_validation(playbooks, place, stopped):
    play = [{"hosts": "kvm_hosts", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": {"name": "kvmfleet.core.vm", "tasks_from": "create"}}]}]
    (playbooks.folder / "play.yml").write_text(yaml.safe_dump(play))
    given = dict(stopped, vm_name=place.name("role"), vm_count="1", vm_labels="a=b", vm_key_dir=playbooks.keys, vm_disks="16MiB,16MiB")
    assert list(playbooks.does(str(playbooks.folder / "play.yml"), **given).vms) == [place.name("role-1")]


def test_a_long_wait_tells_what_each_vm_is_waiting_for(place, playbooks):
    """There is no system on the disk, so that nothing ever answers."""
    run = playbooks.run("create_vm", vm_name=place.name("web"), vm_count=2, vm_image=IMAGE, vm_memory="64MiB", vm_wait="ssh", vm_wait_timeout=25)
    assert run.reason == "wait_timeout", run.output
    heading = run.output.index("TASK [kvmfleet.core.vm : Wait for the guests]")
    for vm in (place.name("web-1"), place.name("web-2")):
        assert run.output.index("{0} on local: waiting for SSH: no address yet (".format(vm)) > heading
