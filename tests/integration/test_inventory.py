# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin fleet, by ansible-inventory as a user runs it, over real libvirtds, some of which hang or are not there."""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
import yaml

from ansible_collections.kvmfleet.core.plugins.inventory.fleet import EXAMPLES
from ansible_collections.kvmfleet.core.tests.integration.fleet_lab import PrivateLibvirt
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

TIMEOUT_S = 3
SECRETS = ("vncgehei", "root-geheim", "user-geheim", "file-geheim")
EVIL = "{{ lookup('ansible.builtin.pipe', 'echo EVALU' ~ 'ATED') }}"
NETWORKS = {
    "default": "<forward mode='nat'/><bridge name='virbr0'/><ip address='192.0.2.1' prefix='24'/>",
    "closed": "<bridge name='virbr1'/><ip address='198.51.100.1' prefix='24'/>",
}
DOMAIN = """<domain type='qemu'><name>{name}</name><description>{description}</description>
<metadata>{meta}</metadata><memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type machine='q35'>hvm</type></os>
<devices><interface type='network'><source network='{network}'/></interface><graphics type='vnc' passwd='vncgehei'/></devices></domain>"""
META = """<kvmfleet:vm xmlns:kvmfleet='urn:kvmfleet:vm:1'><kvmfleet:phase>ready</kvmfleet:phase>{0}</kvmfleet:vm>"""


def define(libvirtd, name, description="", network="default", meta="", labels=None, address=None, **texts):
    """A domain with our metadata where there is something to put there."""
    parts = ["<kvmfleet:{0}>{1}</kvmfleet:{0}>".format(key, value) for key, value in texts.items()]
    parts += ["<kvmfleet:label name='{0}'>{1}</kvmfleet:label>".format(key, value) for key, value in (labels or {}).items()]
    parts += ["<kvmfleet:address>{0}</kvmfleet:address>".format(address)] if address else []
    return libvirtd.conn.defineXML(DOMAIN.format(name=name, description=description, network=network, meta=META.format("".join(parts)) if parts else ""))


@pytest.fixture(scope="module")
def libvirtds():
    """Three libvirtds with a network each, which are this file's own."""
    root = tempfile.mkdtemp(prefix="kfit-inventory")
    os.chmod(root, 0o755)
    folders = [os.path.join(root, name) for name in ("a", "b", "c")]
    for folder in folders:
        os.mkdir(folder, 0o755)
    started = [PrivateLibvirt(folder, wait=False) for folder in folders]
    try:
        for libvirtd in started:
            libvirtd.conn = libvirtd.opened()
            for name, xml in NETWORKS.items():
                network = libvirtd.conn.networkDefineXML("<network><name>{0}</name>{1}</network>".format(name, xml))
            pool = libvirtd.conn.storagePoolDefineXML("<pool type='dir'><name>default</name><target><path>/var/lib/libvirt/images</path></target></pool>")
            pool.create()
            del network, pool
        yield started
    finally:
        for libvirtd in started:
            with contextlib.suppress(AttributeError):  # it did not answer at all
                libvirtd.conn.close()
            libvirtd.stop()
        shutil.rmtree(root)


class Fleet:
    """A folder with a fleet file and what is beside it, and Ansible's programs run on it."""

    def __init__(self, folder, libvirtds):
        self.folder, self.libvirtds = folder, libvirtds
        self.file = folder / "my.fleet.yml"
        (folder / "ansible.cfg").write_text("[defaults]\n")
        self.hosts = {"kvm{0}".format(i + 1): {"uri": libvirtd.uri} for i, libvirtd in enumerate(libvirtds)}
        self.write()

    def write(self, **content):
        """The fleet file."""
        data = dict({"plugin": "kvmfleet.core.fleet", "timeout": TIMEOUT_S, "hosts": self.hosts}, **content)
        self.file.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}, sort_keys=False))

    def put(self, path, content):
        """A file beside the fleet file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(yaml.safe_dump(content))
        return str(target)

    def run(self, program, *arguments, sources=(), fails=False):
        """A program of Ansible; its output, errors and the seconds it took."""
        environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_NOCOLOR="1", COLUMNS="10000",
                           ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1", ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"))
        command = [os.path.join(BIN, program)]
        for source in sources or [str(self.file)]:
            command += ["-i", source]
        begin = time.monotonic()
        done = subprocess.run(command + list(arguments), env=environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=300,
                              stdin=subprocess.DEVNULL)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout, done.stderr, time.monotonic() - begin

    def dump(self, *arguments, sources=()):
        """The inventory: (variables by host, members by group, warnings)."""
        text, errors, _took = self.run("ansible-inventory", "--list", *arguments, sources=sources)
        data = json.loads(text)
        return Dump(plain(data["_meta"]["hostvars"]), {name: set(group.get("hosts", [])) for name, group in data.items() if name != "_meta"}, errors, text)

    def refusal(self, *arguments, sources=()):
        """What is said where the file is refused."""
        _text, errors, _took = self.run("ansible-inventory", "--list", *arguments, sources=sources, fails=True)
        return " ".join(errors.split())


class Dump:
    """What ansible-inventory --list says."""

    def __init__(self, variables, groups, warnings, text):
        self.variables, self.groups, self.text = variables, groups, text
        self.warnings = [" ".join(part.split()) for part in warnings.split("[WARNING]: ")[1:]]


def plain(value):
    """Data without the marks of what is not to be templated."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def documented():
    """The fleet files of the documentation: the plugin's EXAMPLES and docs/inventory.md."""
    with open(os.path.join(ROOT, "docs", "inventory.md"), encoding="utf-8") as page:
        blocks = re.findall("```yaml\n(.*?)```", page.read(), re.DOTALL)
    return EXAMPLES.split("---\n") + [block for block in blocks if "plugin:" in block]


@pytest.fixture
def fleet(tmp_path, libvirtds):
    """A fleet of the three libvirtds, whose domains go with the test."""
    yield Fleet(tmp_path, libvirtds)
    for libvirtd in libvirtds:
        for domain in libvirtd.conn.listAllDomains():
            domain.undefine()


def test_hosts_with_capacity_and_vms_with_groups(fleet, libvirtds):
    fleet.hosts["kvm1"].update(region="eu", zone="a-1", labels={"disk": "nvme"})
    fleet.write(defaults={"region": "us", "totals": {"vcpus": 10, "memory": "1GiB"}, "ratios": {"vcpus": 2}})
    define(libvirtds[0], "web.prod.blue", "the web", group="blue", namespace="prod", image="debian:12", flavor="small", labels={"app": "web", "a b": "c/d"},
           address="192.0.2.10/24", set="web", index=1)
    define(libvirtds[1], "old")
    fleet.put("group_vars/all.yml", {"kvmfleet_images": {"debian:12": {"default_user": "debian"}}})
    dump = fleet.dump()
    assert not dump.warnings
    assert dump.groups["kvm_hosts"] == {"kvm1", "kvm2", "kvm3"}
    host = dump.variables["kvm1"]
    assert (host["kvm_status"], host["kvm_region"], host["kvm_zone"], host["kvm_labels"]) == ("ok", "eu", "a-1", {"disk": "nvme"})
    assert (host["ansible_connection"], host["kvm_uri"], host["kvmfleet_file"]) == ("local", libvirtds[0].uri, str(fleet.file))
    capacity = host["kvm_capacity"]
    assert {key: capacity["vcpus"][key] for key in ("total", "ratio", "allocated", "available")} == {"total": 10, "ratio": 2.0, "allocated": 2, "available": 18}
    assert capacity["memory"]["total_mib"] == 1024 and capacity["domains"]["defined"] == 1 and capacity["pools"]["default"]["active"]
    assert "vms" not in capacity and dump.variables["kvm3"]["kvm_region"] == "us"
    assert dump.groups["kvm_vms"] == {"web.prod.blue", "old"}
    for group in ("region_eu", "zone_a_1", "state_stopped", "group_blue", "image_debian_12", "label_app_web", "label_a_b_c_d"):
        assert "web.prod.blue" in dump.groups[group], group
    assert dump.groups["state_stopped"] == {"web.prod.blue", "old"} and dump.groups["region_us"] == {"old"}
    vm = dump.variables["web.prod.blue"]
    assert (vm["ansible_host"], vm["ansible_user"]) == ("192.0.2.10", "debian") and "ansible_ssh_common_args" not in vm  # its host is this machine
    assert {key[len("kvm_vm_"):]: value for key, value in vm.items() if key.startswith("kvm_vm_") and key != "kvm_vm_uuid"} == {
        "name": "web.prod.blue", "host": "kvm1", "region": "eu", "zone": "a-1", "state": "stopped", "phase": "ready", "managed": True, "vcpus": 2,
        "memory_mib": 64, "group": "blue", "namespace": "prod", "set": "web", "index": 1, "image": "debian:12", "flavor": "small",
        "labels": {"app": "web", "a b": "c/d"}, "networks": ["default"], "addresses": ["192.0.2.10"], "description": "the web"}
    assert not [key for key in vm if key.startswith("vm_")]
    assert dump.variables["old"]["kvm_vm_managed"] is False and "ansible_host" not in dump.variables["old"]


def test_vms_that_run(fleet, libvirtds):
    """Machines without a disk or a NIC: they start at once and run nothing."""
    xml = "<domain type='qemu'><name>{0}</name><memory unit='MiB'>64</memory><os><type machine='q35'>hvm</type></os><devices/></domain>"
    started = [libvirtds[0].conn.defineXML(xml.format(name)) for name in ("runs", "waits")] + [libvirtds[1].conn.createXML(xml.format("transient"))]
    try:
        started[0].create()
        started[1].create()
        started[1].suspend()
        dump = fleet.dump()
        assert (dump.groups["state_running"], dump.groups["state_paused"]) == ({"runs", "transient"}, {"waits"}) and not dump.warnings
        assert dump.variables["kvm1"]["kvm_capacity"]["domains"]["running"] == 2
        assert dump.variables["kvm1"]["kvm_capacity"]["vcpus"]["used"] == 2
    finally:
        for domain in started:
            domain.destroy()


def test_hosts_that_hang_refuse_or_are_not_there_cost_one_deadline(fleet, libvirtds):
    define(libvirtds[0], "web")
    define(libvirtds[1], "db")
    silent = {"silent{0}".format(i): socket.create_server(("127.0.0.{0}".format(i), 0)) for i in range(1, 5)}
    ports = {name: listener.getsockname() for name, listener in silent.items()}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    fleet.hosts.update({name: {"uri": "qemu+tcp://{0}:{1}/system".format(*place)} for name, place in ports.items()})
    fleet.hosts.update({
        "absent": {"uri": "qemu+unix:///system?socket=/nowhere/libvirt-sock"}, "refusing": {"uri": "qemu+tcp://127.0.0.1:{0}/system".format(closed)},
        "mute": {"uri": "qemu+ssh://root@{0}:{1}/system".format(*ports["silent1"])}})
    fleet.write()
    _text, _errors, usual = fleet.run("ansible-inventory", "--list", sources=["localhost,"])
    libvirtds[1].signal("STOP")
    try:
        text, errors, took = fleet.run("ansible-inventory", "--list")
        # The same threads hang while Ansible forks workers, and when it ends
        ran, _more, _took = fleet.run("ansible", "kvm_hosts:kvm_vms", "-m", "ansible.builtin.debug", "-a", "var=kvm_status")
    finally:
        libvirtds[1].signal("CONT")
        for listener in silent.values():
            listener.close()
    hosts = json.loads(text)["_meta"]["hostvars"]
    bad = {"kvm2", "absent", "mute", "refusing", *silent}
    assert {name for name, variables in hosts.items() if plain(variables.get("kvm_status")) == "unreachable"} == bad
    assert {name for name, variables in hosts.items() if plain(variables.get("kvm_status")) == "ok"} == {"kvm1", "kvm3"}
    assert "web" in hosts and "db" not in hosts and "kvm_capacity" not in hosts["kvm2"]
    for name in bad:
        assert errors.count("KVM host {0} is unreachable".format(name)) == 1
    assert errors.count("[WARNING]") == len(bad), errors
    assert "Traceback" not in errors and ran.count("unreachable") == len(bad)
    assert took - usual < (len(silent) + 2) * TIMEOUT_S / 2, "six hang: the deadline was paid more than once"
    children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "ssh -p {0}".format(ports["silent1"][1]) not in children
    assert fleet.dump().variables["kvm2"]["kvm_status"] == "ok"


def test_no_secret_is_in_the_complete_dump_or_in_the_cache(fleet, libvirtds):
    define(libvirtds[0], "web", group="blue", address="192.0.2.10/24")
    fleet.write(cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(fleet.folder / "cache"), vms=[
        {"name": "new", "image": "debian:12", "root_password": "root-geheim", "users": [{"name": "a", "password": "user-geheim"}],
         "write_files": [{"path": "/a", "content": "file-geheim"}]}])
    fleet.put("group_vars/all.yml", {"kvmfleet_images": {"debian:12": {"default_user": "debian"}}})
    text = fleet.dump().text + "".join(fleet.run("ansible-inventory", "--list", "--export", "-vvvv")[:2])
    text += "".join(path.read_text() for path in (fleet.folder / "cache").iterdir())
    assert "192.0.2.10" in text and len(list((fleet.folder / "cache").iterdir())) == 1
    for secret in SECRETS:
        assert secret not in text


def test_the_cache_keeps_what_answered_only(fleet, libvirtds):
    fleet.write(cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(fleet.folder / "cache"))
    define(libvirtds[0], "first", address="192.0.2.10/24")
    define(libvirtds[1], "second")
    libvirtds[1].signal("STOP")
    try:
        assert fleet.dump().variables["kvm2"]["kvm_status"] == "unreachable"
    finally:
        libvirtds[1].signal("CONT")
    define(libvirtds[0], "third")
    dump = fleet.dump()
    assert dump.groups["kvm_vms"] == {"first", "second"}, "kvm1 from the cache, kvm2 anew"
    assert dump.variables["first"]["ansible_host"] == "192.0.2.10" and dump.variables["kvm1"]["kvm_capacity"]["domains"]["defined"] == 1
    fleet.hosts["kvm1"]["ratios"] = {"vcpus": 1}  # what was reckoned otherwise does not count
    fleet.write(cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(fleet.folder / "cache"))
    define(libvirtds[1], "fourth")
    assert fleet.dump().groups["kvm_vms"] == {"first", "second", "third"}
    fleet.put("play.yml", [{"hosts": "kvm_vms"}])
    listed, _errors, _took = fleet.run("ansible-playbook", "--list-hosts", "--flush-cache", str(fleet.folder / "play.yml"))
    assert "hosts (4):" in listed and "fourth" in listed
    assert fleet.dump().groups["kvm_vms"] == {"first", "second", "third", "fourth"}


def test_where_settings_come_from(fleet, libvirtds):
    fleet.hosts["kvm1"].update(zone="entry")
    fleet.hosts["kvm2"].update(zone="entry")
    fleet.write(defaults={"zone": "default", "region": "default", "pool": "default", "ratios": {"vcpus": 1}, "totals": {"vcpus": 10}})
    fleet.put("group_vars/all.yml", {"kvm_zone": "group", "where": "here", "kvm_region": "{{ where }}-{{ inventory_hostname }}"})
    fleet.put("group_vars/kvm_hosts.yml", {"kvm_ratios": {"vcpus": 3}})
    fleet.put("host_vars/kvm2.yml", {"kvm_zone": "host"})
    define(libvirtds[1], "vm")
    dump = fleet.dump("-e", "kvm_pool=extra")
    assert [dump.variables[name]["kvm_zone"] for name in ("kvm1", "kvm2", "kvm3")] == ["entry", "host", "group"]
    assert dump.groups["zone_host"] == dump.groups["region_here_kvm2"] == {"vm"}
    assert all(dump.variables[name]["kvm_capacity"]["vcpus"]["ratio"] == 3 for name in ("kvm1", "kvm2", "kvm3"))
    assert dump.variables["kvm1"]["kvm_totals"] == {"vcpus": 10}
    fleet.put("group_vars/kvm_hosts.yml", {"kvm_ratios": {"cpus": 3}})
    assert "kvm_ratios.cpus of host kvm1: is not a key" in fleet.refusal()
    fleet.put("group_vars/kvm_hosts.yml", {"kvm_zone": "{{ nowhere }}"})
    assert "kvm_zone of host kvm3 cannot be resolved" in fleet.refusal()


def test_hosts_of_ordinary_inventory(fleet, libvirtds):
    machines = [{"ansible_connection": "local", "kvm_uri": libvirtd.uri} for libvirtd in libvirtds]
    ordinary = fleet.put("hosts.yml", {"machines": {"hosts": {"one": dict(machines[0], kvm_zone="z"), "two": machines[1]}}})
    define(libvirtds[0], "vm")
    sources = [ordinary, str(fleet.file)]
    fleet.hosts = {"kvm3": fleet.hosts["kvm3"], "two": {"zone": "mine"}}
    fleet.write(hosts_from="machines")
    dump = fleet.dump(sources=sources)
    assert dump.groups["kvm_hosts"] == {"one", "two", "kvm3"} and not dump.warnings
    assert [dump.variables[name]["kvm_status"] for name in ("one", "two", "kvm3")] == ["ok"] * 3
    assert (dump.groups["zone_z"], dump.variables["two"]["kvm_zone"]) == ({"vm"}, "mine")
    fleet.hosts = {"alias": {"uri": libvirtds[0].uri}}
    fleet.write(hosts_from="machines")
    assert "my.fleet.yml, line 4: hosts.alias: alias and one are the same host" in fleet.refusal(sources=sources)
    fleet.write()
    kvm_hosts = fleet.put("hosts.yml", {"kvm_hosts": {"hosts": {"one": machines[0]}}})
    assert "are the same host" in fleet.refusal(sources=[kvm_hosts, str(fleet.file)]), "a play over kvm_hosts would see it twice"
    fleet.write(hosts_from="machinez")
    assert "line 6: hosts_from = 'machinez': no inventory source before this file has such a group" in fleet.refusal()


def test_one_host_under_two_addresses(fleet, libvirtds):
    other = str(fleet.folder / "sock")
    os.symlink(libvirtds[0].socket, other)
    fleet.hosts = {"one": {"uri": libvirtds[0].uri}, "two": {"uri": "qemu+unix:///system?socket=" + other}}
    fleet.write()
    define(libvirtds[0], "vm")
    assert "one, two': are the same host" in fleet.refusal()


def test_names_that_others_have(fleet, libvirtds):
    for libvirtd in libvirtds[:2]:
        define(libvirtd, "twin")
    for name in ("kvm2", "localhost", "state_stopped", "admin", "{{ 1 }}"):
        define(libvirtds[0], name)
    ordinary = fleet.put("hosts.yml", {"ours": {"hosts": {"admin": {"ansible_host": "192.0.2.99"}}}})
    dump = fleet.dump(sources=[ordinary, str(fleet.file)])
    assert dump.groups["kvm_vms"] == {"twin-on-kvm1", "twin-on-kvm2", "kvm2-on-kvm1", "localhost-on-kvm1", "state_stopped-on-kvm1", "admin-on-kvm1", "___1___"}
    assert len(dump.warnings) == 1 and "twin on kvm1 is twin-on-kvm1" in dump.warnings[0]
    assert dump.variables["admin"] == {"ansible_host": "192.0.2.99"}
    assert dump.variables["___1___"]["kvm_vm_name"] == "{{ 1 }}" and dump.variables["kvm2"]["kvm_status"] == "ok"


def test_nothing_that_guests_say_is_evaluated(fleet, libvirtds):
    quoted = EVIL.replace("'", "&apos;")
    define(libvirtds[0], "web", quoted, labels={"a": quoted}, group=quoted, image=quoted, address=quoted)
    define(libvirtds[0], EVIL.replace("/", ""))
    fleet.put("play.yml", [{"hosts": "kvm_vms:kvm1", "gather_facts": False, "tasks": [
        {"ansible.builtin.debug": {"var": "hostvars[inventory_hostname]"}},
        {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} {{ groups }} {{ kvm_vm_description | default() }} {{ kvm_vm_labels | default() }}"}},
        {"ansible.builtin.debug": {"msg": "{{ kvm_capacity | default() }} {{ kvm_vm_name | default() }} {{ kvm_vm_addresses | default() }}"}}]}])
    text, errors, _took = fleet.run("ansible-playbook", str(fleet.folder / "play.yml"))
    assert "EVALUATED" not in text + errors and "lookup" in text
    dump = fleet.dump()
    assert "EVALUATED" not in dump.text and dump.variables["web"]["kvm_vm_description"] == EVIL
    assert "ansible_host" not in dump.variables["web"]


def test_groups_and_variables_of_ones_own(fleet, libvirtds):
    define(libvirtds[0], "web", flavor="small x", labels={"port": "2222"}, group="blue")
    define(libvirtds[1], "other")
    fleet.hosts["kvm1"]["zone"] = "a"
    options = {"keyed_groups": [{"key": "kvm_vm_flavor", "prefix": "flavor"}, {"key": "kvm_zone", "prefix": "hosts in"}],
               "compose": {"ansible_port": "kvm_vm_labels.port | int", "room": "kvm_capacity.vcpus.available"},
               "groups": {"own-vms": "kvm_vm_managed | default(false)", "kvms": "kvm_status is defined"}}
    fleet.write(**options)
    dump = fleet.dump()
    assert not dump.warnings
    assert (dump.groups["flavor_small_x"], dump.groups["hosts_in_a"]) == ({"web"}, {"kvm1"})
    assert (dump.groups["own_vms"], dump.groups["kvms"]) == ({"web"}, {"kvm1", "kvm2", "kvm3"})
    assert str(dump.variables["web"]["ansible_port"]) == "2222" and "ansible_port" not in dump.variables["other"] and "room" in dump.variables["kvm1"]
    fleet.write(strict=True, **options)
    assert "ansible_port" in fleet.refusal()
    fleet.write(managed_only=True)
    assert fleet.dump().groups["kvm_vms"] == {"web"}
    fleet.write(vms_as_hosts=False)
    assert "kvm_vms" not in fleet.dump().groups


def test_users_of_vms(fleet, libvirtds):
    define(libvirtds[0], "web", image="debian:12")
    fleet.put("group_vars/all.yml", {"kvmfleet_images": {"debian:12": {"default_user": "debian"}}, "ansible_user": "root"})
    assert fleet.dump().variables["web"]["ansible_user"] == "debian"
    fleet.put("group_vars/image_debian_12.yml", {"ansible_user": "me"})
    assert fleet.dump().variables["web"]["ansible_user"] == "me"


def test_where_vms_would_go(fleet, libvirtds):
    fleet.hosts["kvm1"]["schedulable"] = False
    fleet.write(defaults={"totals": {"vcpus": 100, "memory": "100GiB", "disk": "100GiB"}, "networks": {"default": {"network": "default"}}},
                vms=[{"name": "web", "count": 2, "memory": "1GiB", "spread": "host", "ssh_key": "none"}])
    define(libvirtds[0], "db")
    dump = fleet.dump()
    plan = dump.variables["kvm1"]["kvm_plan"]
    assert set(plan) == {"declared"} and plan["declared"]["ok"], plan
    assert len({vm["host"] for vm in plan["declared"]["vms"]}) == 2 and [vm["name"] for vm in plan["declared"]["vms"]] == ["web-1", "web-2"]
    asked = fleet.dump("-e", "fleet_plan=true", "-e", "vm_name=new", "-e", "vm_memory=1GiB").variables["kvm3"]["kvm_plan"]
    answer = asked["request"]["vms"][0]
    assert answer["name"] == "new" and {answer["host"], answer["runner_up"]} == {"kvm2", "kvm3"}
    assert [(refused["host"], refused["code"]) for refused in answer["refused"]] == [("kvm1", "unschedulable")]
    assert "request" not in fleet.dump("-e", "vm_name=new", "-e", "vm_host=nowhere").variables["kvm1"]["kvm_plan"]
    for wrong, words in (("vm_host=nowhere", "nowhere"), ("vm_memory=1000TiB", "new"), ("vm_nonsense=1", "is not a variable"), ("vm_name=", "vm_name")):
        plan = fleet.dump("-e", "fleet_plan=true", "-e", "vm_name=new", "-e", wrong).variables["kvm1"]["kvm_plan"]["request"]
        assert not plan["ok"] and plan["code"] and words in plan["message"]
    fleet.write(vms=[{"name": "web", "image": "no:such"}])
    declared = fleet.dump().variables["kvm1"]["kvm_plan"]["declared"]
    assert (declared["ok"], declared["code"]) == (False, "unknown_image")
    fleet.write()
    assert "kvm_plan" not in fleet.dump().variables["kvm1"]


@pytest.mark.parametrize("text", documented())
def test_the_examples(fleet, libvirtds, text):
    """As they stand, but for the addresses of the hosts and the place of the cache."""
    content = yaml.safe_load(text)
    for number, entry in enumerate(content.get("hosts", {}).values()):
        entry["uri"] = libvirtds[number].uri
    if content.get("cache"):
        content["cache_connection"] = str(fleet.folder / "cache")
    fleet.file.write_text(yaml.safe_dump(content))
    ordinary = fleet.put("hosts.yml", {"kvm_hosts": {"hosts": {"one": {"ansible_connection": "local", "kvm_uri": libvirtds[2].uri}}}})
    define(libvirtds[0], "web", flavor="small", labels={"ssh_port": "2222", "ssh": "high"})
    dump = fleet.dump(sources=[ordinary, str(fleet.file)] if "hosts_from" in content else ())
    assert not dump.warnings
    assert all(dump.variables[host]["kvm_status"] == "ok" for host in dump.groups["kvm_hosts"])
    if "keyed_groups" in content:
        assert dump.groups["flavor_small"] == {"web"} and str(dump.variables["web"]["ansible_port"]) == "2222"
    if "vms" in content:
        assert "declared" in next(dump.variables[host] for host in dump.groups["kvm_hosts"])["kvm_plan"]


@pytest.mark.parametrize("content, words", [
    ("hosts:\n  kvm1:\n    zoone: a", "my.fleet.yml, line 4: hosts.kvm1.zoone: is not a setting of a host. Perhaps zone was meant."),
    ("hosts:\n  kvm1: {}\n  kvm1: {}", "my.fleet.yml, line 4: hosts.kvm1: is there twice, in line 3 as well."),
    ("hosts: {a: {}}\nkeyed_groups: flavor", "my.fleet.yml, line 3: keyed_groups: is not a list."),
])
def test_a_wrong_file_is_refused_with_file_line_and_key(fleet, content, words):
    fleet.file.write_text("plugin: kvmfleet.core.fleet\n" + content + "\n")
    assert words in fleet.refusal()


def test_encrypted_files_and_values(fleet, libvirtds):
    (fleet.folder / "key").write_text("geheim")
    vault = [os.path.join(BIN, "ansible-vault")]
    secret = subprocess.run(vault + ["encrypt_string", "--vault-password-file", str(fleet.folder / "key"), "root-geheim", "--name", "root_password"],
                            capture_output=True, text=True, check=True).stdout
    fleet.file.write_text(fleet.file.read_text() + "vms:\n  - name: web\n    seed_format: nocloud\n    " + secret.replace("\n", "\n    ") + "\n")
    for arguments in ([], ["--vault-password-file", str(fleet.folder / "key")]):
        dump = fleet.dump(*arguments)
        assert dump.variables["kvm1"]["kvm_plan"]["declared"]["vms"] and not dump.warnings
    assert dump.variables["kvm1"]["kvm_status"] == "ok" and "root-geheim" not in dump.text
    subprocess.run(vault + ["encrypt", "--vault-password-file", str(fleet.folder / "key"), str(fleet.file)], capture_output=True, check=True)
    assert fleet.dump("--vault-password-file", str(fleet.folder / "key")).variables["kvm1"]["kvm_status"] == "ok"
