# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates launched as AWX launches them, over a lab of KVM hosts: what they make, what they answer, and what tenants cannot reach."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path

import pytest

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs
from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.awx.awx_jobs import Controller
from ansible_collections.kvmfleet.core.tests.awx.root_door import RootDoor
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import FleetPlaybooks
from ansible_collections.kvmfleet.core.tests.integration.places import IMAGE
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDP1mq1Y0bVG9bQ0a8Z9Jn2bqkVwWm3u0Qk5s9H9qXyz me@laptop"
SMALL = {"vm_image": "debian:12", "vm_flavor": "tiny", "vm_ssh_key": KEY, "vm_wait": "none"}


class Awx:
    """The templates for the lab's catalogs, and launches of them."""

    def __init__(self, lab, folder, path=BIN):
        self.doors = [RootDoor(host) for host in lab.hosts]
        self.fleet = FleetPlaybooks(lab, folder, (4, 4, 4))
        self.fleet.address_pool(9)
        self.fleet.catalogs["kvmfleet_groups"] = {"red": {"quota": {"vms": 3}}, "blue": {}}
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "copied.qcow2"), "8M"], check=True)
        self.fleet.catalogs["kvmfleet_images"].update({"ops:1": {"volume": IMAGE, "admin_only": True}, "blue:1": {"volume": IMAGE, "groups": ["blue"]},
                                                       "copied:1": {"source": "path", "path": str(folder / "copied.qcow2")}})
        # Through the door one is root already.
        self.fleet.room((4, 4, 4), **{host.host: {"ansible_python_interpreter": door.python, "ansible_become": False}
                                      for host, door in zip(lab.hosts, self.doors)})
        self.types = {made["name"]: made for made in _awx.CREDENTIAL_TYPES}
        objects = _awx.objects(_awx.Settings("https://git.example.org/x.git", "ee"), Catalogs(self.fleet.catalogs), self.fleet.catalogs)
        self.templates = {t["name"]: t for t in objects["controller_templates"]}
        for template in self.templates.values():
            if "vm_group" in template["extra_vars"]:
                template["extra_vars"]["vm_wait"] = "none"  # nothing runs in the lab's guests, and tenants are not asked
        self.controller = Controller(folder, folder / "inventory.yml", path)

    def launch(self, name, check=False, credentials=(), vault=None, limit=None, **answers):
        """See L(Controller.launch)."""
        return self.controller.launch(self.templates[name], answers, check, [(self.types[kind], inputs) for kind, inputs in credentials], vault,
                                      limit)

    def does(self, name, **given):
        """What a job answers that has to succeed."""
        job = self.launch(name, **given)
        assert job.status == "successful", job.output
        return job.answer

    def fails(self, name, **given):
        """What a job answers that has to fail."""
        job = self.launch(name, **given)
        assert job.status == "failed", job.output
        assert job.answer["failed"] is True and job.answer["msg"] and job.answer["reason"]
        return job.answer


@pytest.fixture(scope="module")
def running_awx(running_lab):
    folder = Path(tempfile.mkdtemp(prefix="kfawx-"))
    folder.chmod(0o755)
    made = Awx(running_lab, folder)
    yield made
    for door in made.doors:
        door.close()
    shutil.rmtree(folder)


@pytest.fixture
def awx(running_awx, lab):
    return running_awx


def test_a_vm_from_the_first_answer_to_the_last(awx, lab):
    secrets = [("kvmfleet guests", {"root_password": "S3cret!word", "users": ""})]
    made = awx.does("kvmfleet: Create VMs", vm_name="web", vm_count=2, credentials=secrets, **SMALL)
    assert [vm["name"] for vm in made["vms"]] == ["web-1", "web-2"]
    for vm in made["vms"]:
        assert vm["host"] in lab.where() and vm["state"] == "running" and vm["console"] and "address" in vm
    assert [(chosen["host"], chosen["refused"]) for chosen in made["placement"]["vms"]] == [(vm["host"], []) for vm in made["vms"]]
    listed = awx.does("kvmfleet: List VMs")
    assert {vm["name"]: vm["host"] for vm in listed["vms"]} == {vm["name"]: vm["host"] for vm in made["vms"]}
    assert awx.does("kvmfleet: Change the power state of VMs", vm_name="web-1", vm_action="force_off")["vms"][0]["state"] == "stopped"
    again = awx.fails("kvmfleet: Delete VMs", vm_name="web-*")
    assert again["reason"] == "not_confirmed" and sum(map(len, lab.where().values())) == 2
    assert awx.does("kvmfleet: Delete VMs", vm_name="web-*", vm_confirm=2)["changed"] == 2
    assert lab.where() == {} and lab.residue() == []


def test_a_failure_is_an_answer_too(awx, lab):
    """Whatever ends a job, its artifacts say why, and why on each host."""
    refused = awx.fails("kvmfleet: Create VMs", vm_name="no_label", **SMALL)
    assert refused["reason"] == "invalid_value" and "vm_name" in refused["msg"]
    full = awx.fails("kvmfleet: Create VMs", vm_name="big", vm_vcpus=9, **SMALL)
    assert full["reason"] == "no_capacity" and set(full["hosts"]) == {"kvm1", "kvm2", "kvm3"}
    assert all("vcpus" in host["msg"] and host["reason"] for host in full["hosts"].values())
    with lab["kvm2"].hung():
        silent = awx.fails("kvmfleet: Create VMs", vm_name="big", vm_vcpus=9, vm_capacity_timeout=3, **SMALL)
    assert silent["hosts"]["kvm2"]["reason"] == "host_unreachable" and silent["hosts"]["kvm1"]["reason"] != "host_unreachable"
    assert lab.where() == {}


def test_answers_are_no_templates_and_no_files(awx, lab):
    words = "{{ lookup('pipe', 'id') }}"
    job = awx.launch("kvmfleet: Create VMs", vm_name="web", vm_description=words, vm_state="stopped", **SMALL)
    assert job.status == "successful", job.output
    described = [domain.XMLDesc() for host in lab.hosts for domain in host.domains()]
    assert len(described) == 1 and words in described[0].replace("&apos;", "'") and "uid=" not in described[0]
    for answer in ({"vm_user_data": "/etc/passwd"}, {"vm_ssh_key": "/etc/passwd"}):
        refused = awx.fails("red: Create VMs", **dict(SMALL, vm_name="spy", **answer))
        assert refused["reason"] == "not_allowed" and "root:" not in str(refused)


def test_a_tenant_neither_reaches_nor_sees_what_is_anothers(awx, lab, monkeypatch):
    """Not even in what AWX keeps of every task, which who may execute a template may read."""
    monkeypatch.setitem(awx.controller.hosts["_meta"]["hostvars"]["kvm3"], "kvm_groups", ["blue"])
    blue = awx.does("blue: Create VMs", vm_name="bluebird", vm_labels="owner=blueish", vm_network="pooled", **dict(SMALL, vm_image="blue:1"))
    assert blue["vms"][0]["name"] == "bluebird.default.blue" and blue["vms"][0]["image"] == "blue:1"
    (_name, theirs), = lab.ours()
    domain = next(domain for host in lab.hosts for domain in host.domains())
    words = ["bluebird", domain.UUIDString(), theirs.addresses[0].partition("/")[0], *re.findall("<mac address='(.*?)'", domain.XMLDesc())]
    assert len(words) == 4
    seen = awx.launch("kvmfleet: Show the capacity of the fleet").readable
    assert [word for word in words if word not in seen] == [], "operators see them, so these are the words to look for"

    def look(name, fails=False, **given):
        """What a job of the reds answers, which shows nothing of the blues."""
        job = awx.launch("red: " + name, **given)
        assert job.status == ("failed" if fails else "successful"), job.output
        assert [word for word in words if word in job.readable] == [], job.output
        return job.answer
    made = look("Create VMs", vm_name="web", vm_count=2, vm_group="blue", **SMALL)
    assert {vm["name"] for vm in made["vms"]} == {"web-1.default.red", "web-2.default.red"} and {vm["host"] for vm in made["vms"]} == {"kvm1", "kvm2"}
    assert look("Scale a set of VMs", vm_name="web", vm_count=3, vm_ssh_key=KEY)["vms"][0]["host"] in ("kvm1", "kvm2")
    quota = look("Create VMs", fails=True, vm_name="more", **SMALL)
    assert quota["reason"].startswith("quota"), quota
    assert len(look("List VMs", vm_name="?*")["vms"]) == 3
    shown = look("Show the capacity of the fleet")
    assert {host["name"] for host in shown["hosts"]} == {"kvm1", "kvm2"} and shown["unreachable"] == []
    before = lab.snapshot()
    for template, name in (("Delete VMs", "*.default.blue"), ("Change the power state of VMs", "b*.*.*")):
        assert not look(template, vm_name=name, vm_confirm=1, vm_action="force_off")["vms"] and lab.snapshot() == before
    for template, name in (("Delete VMs", "bluebird.default.blue"), ("Change the power state of VMs", "bluebird.default.blue")):
        refused = awx.launch("red: " + template, vm_name=name, vm_confirm=1, vm_action="force_off").answer
        assert refused["reason"] == "not_ours" and not refused["vms"] and lab.snapshot() == before
    for answer in ({"vm_image": "blue:1"}, {"vm_image": "ops:1"}, {"vm_image": "secret:1"}):
        with pytest.raises(awx_rules.Refused):
            awx.launch("red: Create VMs", vm_name="web2", **dict(SMALL, **answer))
    assert look("Delete VMs", vm_name="web*", vm_confirm=3, vm_delete_disks="false")["changed"] == 3
    assert [name for name, _meta in lab.ours()] == ["bluebird.default.blue"] and lab.residue() == [], "disks that stay would not count for the quota"


def test_templates_with_the_default_answers(awx, lab):
    """A click that answers nothing but what has to be answered; where that would change this machine, in check mode."""
    project = awx.controller.project
    secret = subprocess.run([os.path.join(BIN, "ansible-vault"), "encrypt_string", "--vault-password-file", "/dev/stdin", "S3cret!word", "--name",
                             "root_password"], input="open sesame", check=True, stdout=subprocess.PIPE, text=True).stdout
    (project / "fleet.yml").write_text("plugin: kvmfleet.core.fleet\nhosts:\n  kvm1: {}\nvms:\n  - name: db\n    image: debian:12\n    flavor: tiny\n"
                                       "    ssh_key: none\n    wait: none\n    wait_timeout: 5\n" + textwrap.indent(secret, "    "))
    (project / "fleet.yml").chmod(0o444)
    # What the lab's hosts have not of their own, and these find out where all before that has gone well.
    lacks = {"setup_hosts": "no_systemd", "host_networks": "no_system"}
    tried = {"create_vm", "delete_vm", "scale_vm", "power_vm", "list_vms", "capacity"}  # by the other tests

    def run(playbook, **how):
        tried.add(playbook)
        template = next(t for t in awx.templates.values() if t["playbook"] == "playbooks/{0}.yml".format(playbook) and t["name"].startswith("kvmfleet: "))
        job = awx.launch(template["name"], **how)
        assert job.status == "successful" or '"reason": "{0}"'.format(lacks.get(playbook)) in job.output, job.output
        return job
    assert run("list_images").answer["images"] and run("list_flavors").answer["flavors"] and run("list_networks").answer["networks"]
    assert len(run("list_hosts").answer["hosts"]) == 3
    assert run("fleet_page").answer["html"].startswith("<!DOCTYPE html>")
    job = run("converge_fleet", vault="open sesame")
    assert job.answer["vms"][0]["name"] == "db" and job.answer["changed"] == 1 and "S3cret" not in job.readable
    assert "copied" not in str(lab.files())
    run("base_image")
    assert [name for name in lab.files() if "copied" in name] == [name for name in lab.files() if "base-" in name] and "copied" in str(lab.files())
    assert "copied" in run("prune_images").output and "copied" in str(lab.files())
    run("host_networks", check=True, limit="kvm1")
    run("setup_hosts", check=True, limit="kvm1")
    assert tried == set(_awx.TEMPLATES)


@pytest.mark.long
def test_the_other_templates(awx, lab):
    """What a group's templates and the operators' answer besides."""
    awx.does("red: Create VMs", vm_name="web", vm_count=1, **SMALL)
    scaled = awx.does("red: Scale a set of VMs", vm_name="web", vm_count=2, vm_ssh_key=KEY, vm_wait="none")
    assert scaled["scaling"]["to"] == 2 and sorted(vm for names in lab.where().values() for vm in names) == ["web-1.default.red", "web-2.default.red"]
    full = awx.fails("red: Scale a set of VMs", vm_name="web", vm_count=9, vm_ssh_key=KEY, vm_wait="none")
    assert "quota" in full["reason"] and full["verb"]
    for group in ("kvmfleet", "red"):
        assert awx.does(group + ": Show the capacity of the fleet")["total"]["vcpus"]["allocated"] == 2
        assert {host["name"] for host in awx.does(group + ": List hosts")["hosts"]} == {"kvm1", "kvm2", "kvm3"}
        images = [image["name"] for image in awx.does(group + ": List images")["images"]]
        assert images == (["copied:1", "debian:12"] if group == "red" else ["blue:1", "copied:1", "debian:12", "ops:1"])
        assert [flavor["name"] for flavor in awx.does(group + ": List flavors")["flavors"]] == ["tiny"]
        assert "default" in [network["name"] for network in awx.does(group + ": List networks")["networks"]]
    page = awx.does("kvmfleet: Write the fleet as one HTML page")
    assert page["html"].startswith("<!DOCTYPE html>") and "web-1.default.red" in page["html"]


# Not "*" alone: core 2.19 itself cannot read it where AWX marks it !unsafe.
@pytest.mark.long
@pytest.mark.parametrize("name", ["web", "web*", "?*", "[a-z]*", "web.default.*", "*.blue", "web.*.blue,web.default.blue", "web.default.blue\nweb"])
@pytest.mark.parametrize("template, answers", [("red: Delete VMs", {"vm_confirm": 1}), ("red: Change the power state of VMs", {"vm_action": "force_off"}),
                                               ("red: List VMs", {})])
def test_no_answer_reaches_another_groups_vm(awx, lab, name, template, answers):
    awx.does("blue: Create VMs", vm_name="web", **SMALL)
    before = lab.snapshot()
    job = awx.launch(template, vm_name=name, **answers)
    assert lab.snapshot() == before and not job.answer["vms"], job.output


@pytest.mark.long
@pytest.mark.parametrize("core", ["2.17", "2.18"])
def test_on_the_other_versions_of_core(running_lab, lab, core):
    """The versions that execution environments have."""
    path = os.path.join(ROOT, ".venv-{0}".format(core), "bin")
    assert os.path.exists(path), "make venv-{0}".format(core)
    folder = Path(tempfile.mkdtemp(prefix="kfawx-"))
    folder.chmod(0o755)
    made = Awx(lab, folder, path)
    try:
        assert made.does("kvmfleet: Create VMs", vm_name="web", **SMALL)["vms"][0]["state"] == "running"
        assert set(made.fails("kvmfleet: Create VMs", vm_name="big", vm_vcpus=9, **SMALL)["hosts"]) == {"kvm1", "kvm2", "kvm3"}
        assert made.fails("red: Create VMs", **dict(SMALL, vm_name="no_label"))["reason"] == "invalid_value"
        assert made.does("kvmfleet: Show the capacity of the fleet")["total"]["vcpus"]
        assert made.does("kvmfleet: Delete VMs", vm_name="web")["changed"] == 1
    finally:
        for door in made.doors:
            door.close()
        shutil.rmtree(folder)
