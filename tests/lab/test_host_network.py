# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_network on real hosts: networks that work, changes that cut a host off and come back by themselves, refusals that touch nothing.

CI runs it over systemd-networkd on Debian 12 and 13; the long tests over all configuration systems, with Open vSwitch, restarts and killed runs.
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import pytest

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

ALL_SYSTEMS = "networkd,ifupdown,netplan,networkmanager"
# Every file of the host's configuration with mode and owner, then the links with bridges and addresses, then the ways out
SNAPSHOT = r"""
cd /etc; find . -xdev \( -type f -o -type l \) ! -path './ssh/*' ! -name 'resolv.conf*' ! -name '*.lock' | LC_ALL=C sort | while read -r f; do
    if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"; else echo "$f $(stat -c '%a %u:%g' "$f") $(sha256sum < "$f")"; fi; done
ip -j -d address | python3 -c '
import json, sys
for l in sorted(json.load(sys.stdin), key=lambda l: l.get("ifname", "")):
    own = sorted(a["local"] for a in l.get("addr_info", ()) if a["scope"] == "global")
    print(l.get("ifname"), l.get("master"), l.get("address"), "UP" in l.get("flags", ()), own)'
ip route show default | cut -d' ' -f1-5
"""
VM_PORT = "kfvm0"       # a tap as libvirt makes them for a VM
BAD_INPUT = """
- hosts: kvm1
  gather_facts: false
  tasks:
    - kvmfleet.core.host_links:
        networks: "{{ item.networks }}"
        system: "{{ item.system | default(omit) }}"
        libvirt: false
      loop: "{{ bad }}"
      ignore_errors: true
      register: refused
    - ansible.builtin.set_stats:
        data: {kvmfleet: "{{ refused.results | map(attribute='msg', default='') | zip(refused.results | map(attribute='reason', default='')) }}"}
        aggregate: false
"""


@pytest.fixture(scope="module", params=["networkd", pytest.param(ALL_SYSTEMS, marks=pytest.mark.long)], ids=["networkd", "all-systems"])
def lab(request, make_lab):
    if request.param == "networkd":
        return make_lab("hostnet", "--hosts", "2", "--suites", "bookworm,trixie")
    return make_lab("hostnet4", "--hosts", "4", "--suites", "bookworm", "--network-system", request.param)


@pytest.fixture(scope="module")
def only_long(lab):
    """Tests of this kind are about the lab with all systems."""
    if len(lab.hosts) < 4:
        pytest.skip("runs over all configuration systems")


def gateway(lab):
    return next(iter(lab.hosts.values()))["ansible_host"].rpartition(".")[0] + ".1"


def networks(lab, **lan):
    """What the hosts of these tests have; C(lan) changes the network with the management address."""
    return [
        dict({"name": "lan", "link": "eth0", "addresses": ["{{ ansible_host }}/24"], "gateway4": gateway(lab), "nameservers": [gateway(lab)]}, **lan),
        {"name": "iso", "type": "isolated", "addresses": ["10.77.0.1/24"]},
        {"name": "overlay", "type": "vxlan", "vni": 4711, "peers": [h["ansible_host"] for h in lab.hosts.values()], "local": "{{ ansible_host }}",
         "addresses": ["10.78.0.{{ ansible_host.split('.')[3] }}/24"]},
        {"name": "inside", "type": "nat", "addresses": ["10.79.0.1/24"]},
    ]


def play(lab, wanted, *options, **variables):
    """The role over the lab, with networks alone."""
    return lab.play("host_networks", *options, variables=dict({"host_network_networks": wanted, "host_network_libvirt": False, "host_network_deadline": 180},
                                                              **variables))


def snapshot(lab, host):
    return lab.ssh(host, "sh -s", text=SNAPSHOT).stdout


def failures(run):
    """Host -> result of its failure."""
    return {host: json.loads(text) for host, text in re.findall(r"^fatal: \[([^\]]*)\]: FAILED! => (\{.*\})$", run.output, re.MULTILINE)}


def eventually(check, what, seconds=90):
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.fixture(scope="module")
def made(lab):
    """The hosts with networks of each kind that this kernel can, and a VM's port in one of them."""
    run = play(lab, networks(lab))
    assert run.code == 0 and run.changed, run.output
    for host in lab.hosts:
        lab.ssh(host, "ip tuntap add dev {0} mode tap && ip link set {0} master br-iso up".format(VM_PORT))
    return lab


def master(lab, host, port=VM_PORT):
    return json.loads(lab.ssh(host, "ip", "-j", "link", "show", "dev", port).stdout)[0].get("master")


def test_networks_are_made_and_a_second_run_changes_nothing(made):
    for host, variables in made.hosts.items():
        links = {link["ifname"]: link for link in json.loads(made.ssh(host, "ip", "-j", "address").stdout)}
        own = {name: [a["local"] for a in link["addr_info"] if a["family"] == "inet"] for name, link in links.items()}
        assert own["br-lan"] == [variables["ansible_host"]] and own["eth0"] == [] and links["eth0"]["master"] == "br-lan"
        assert links["vx-4711"]["master"] == "br-overlay" and own["br-iso"] == ["10.77.0.1"]
        assert "masquerade" in made.ssh(host, "nft", "list", "table", "inet", "kvmfleet").stdout
        assert made.ssh(host, "cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip() == "1"
    first, last = list(made.hosts)[0], list(made.hosts.values())[-1]
    made.ssh(first, "ping", "-c", "2", "-w", "20", "10.78.0." + last["ansible_host"].split(".")[3])
    before = {host: snapshot(made, host) for host in made.hosts}
    again = play(made, networks(made))
    assert (again.code, again.changed) == (0, 0), again.output
    assert {host: snapshot(made, host) for host in made.hosts} == before


def test_a_change_that_cuts_one_host_off_comes_back_and_the_others_go_on(made):
    victim, others = list(made.hosts)[0], list(made.hosts)[1:]
    before = {host: snapshot(made, host) for host in made.hosts}
    wrong = networks(made)
    last = "{{ '250' if inventory_hostname == '%s' else ansible_host.split('.')[3] }}" % victim
    wrong[0]["addresses"] = [gateway(made).rpartition(".")[0] + "." + last + "/24"]
    wrong.append({"name": "new", "type": "isolated"})
    deadline = "{{ 30 if inventory_hostname == '%s' else 180 }}" % victim
    run = play(made, wrong, host_network_allow_management_change=True, host_network_deadline=deadline)
    failed = failures(run)
    assert list(failed) == [victim], run.output
    assert failed[victim]["reason"] == "cut_off" and "lan" in failed[victim]["affected"], failed
    assert "no new connection from the control node came in within 30 s" in failed[victim]["msg"]
    assert snapshot(made, victim) == before[victim]
    for host in others:
        assert "br-new" in made.ssh(host, "ip", "-br", "link").stdout, "one that is cut off keeps nobody else from confirming"
        assert "confirmed" in made.ssh(host, "cat", "/var/lib/kvmfleet/network/state.json").stdout
    assert [master(made, host) for host in made.hosts] == ["br-iso"] * len(made.hosts), "VMs stay attached through the change of other networks"
    gone = play(made, networks(made), host_network_prune=True)
    assert gone.code == 0, gone.output
    assert {host: snapshot(made, host) for host in made.hosts} == before


def test_what_is_refused_touches_nothing(made):
    """Each with the network, the value, and the reason's key, through the module as the role calls it."""
    last = next(iter(made.hosts))
    good = networks(made)
    lan = dict(good[0], addresses=[made.hosts[last]["ansible_host"] + "/24"])
    iso, overlay, inside = good[1], dict(good[2], local=made.hosts[last]["ansible_host"], addresses=["10.78.0.9/24"]), good[3]
    cases = [
        ([lan, dict(iso, type="bridge", link="eth7"), overlay, inside], None, "unknown_link", "eth7"),
        ([lan, dict(iso, type="bridge", link="eth0"), overlay, inside], None, "link_in_use", "eth0"),
        ([lan, dict(iso, type="vlan", link="eth1", vlan=4095), overlay, inside], None, "invalid_value", "4095"),
        ([lan, iso, overlay, inside, {"name": "a", "type": "vlan", "link": "eth1", "vlan": 7}, {"name": "b", "type": "vlan", "link": "eth1", "vlan": 7}],
         None, "vlan_in_use", "7"),
        ([lan, iso, overlay, inside, dict(overlay, name="twin", addresses=[])], None, "vni_in_use", "4711"),
        ([lan, dict(iso, addresses=["10.79.0.9/16"]), overlay, inside], None, "subnet_in_use", "10.79.0.0/16"),
        ([dict(lan, gateway4="192.0.2.1"), iso, overlay, inside], None, "gateway_outside", "192.0.2.1"),
        ([lan, dict(iso, bridge="br-much-too-long-a-name"), overlay, inside], None, "invalid_value", "br-much-too-long-a-name"),
        ([dict(lan, addresses=["10.200.0.9/24"], gateway4="10.200.0.1"), iso, overlay, inside], None, "would_cut_off", "10.200.0.9"),
        ([lan, iso, overlay, inside], "ifupdown", "wrong_system", "host_network_system"),
        ([lan, iso, overlay], None, "undeclared", "inside"),
        ([lan, dict(name="iso", state="absent"), overlay, inside], None, "network_in_use", VM_PORT),
        ([lan, iso, overlay, inside, {"name": "v", "type": "vlan", "link": "eth1", "vlan": 9}], None, "no_kernel_module", "8021q"),
    ]
    path = os.path.join(made.folder, "bad.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(BAD_INPUT)
    before = snapshot(made, last)
    run = made.play(path, variables={"bad": [{"networks": wanted, **({"system": system} if system else {})} for wanted, system, _key, _word in cases]})
    assert run.data, run.output
    assert [reason for _msg, reason in run.data] == [key for _wanted, _system, key, _word in cases], run.data
    for (message, _reason), (_wanted, _system, _key, word) in zip(run.data, cases):
        assert word in message and re.search(r"\. [A-Z].*\.$", message), "option, value, reason and remedy: " + message
    assert snapshot(made, last) == before


def test_two_systems_or_none_are_asked_about(made):
    host = next(iter(made.hosts))
    wanted = networks(made)
    made.ssh(host, "mkdir -p /etc/network && printf '#!/bin/sh\\n' > /sbin/ifup && chmod 755 /sbin/ifup && printf 'iface eth5 inet dhcp\\n' > "
             "/etc/network/interfaces")
    try:
        two = play(made, wanted, "--limit", host, "--check", host_network_install_packages=False)
        assert two.reason == "two_systems" and "ifupdown, networkd" in two.message
        told = play(made, wanted, "--limit", host, "--check", host_network_install_packages=False, host_network_system="networkd")
        assert (told.code, told.changed) == (0, 0), told.output
    finally:
        made.ssh(host, "rm -rf /etc/network /sbin/ifup")


def cut_off(made, before, wanted, *options, **variables):
    """A run in which every host is cut off, and comes back."""
    run = play(made, wanted, *options, host_network_allow_management_change=True, host_network_deadline=40, **variables)
    failed = failures(run)
    assert sorted(failed) == sorted(made.hosts) and {result["reason"] for result in failed.values()} == {"cut_off"}, run.output
    for host in made.hosts:
        assert snapshot(made, host) == before[host], host
        assert master(made, host) == "br-iso"


@pytest.mark.long
def test_a_wrong_gateway_comes_back(made):
    """The control node speaks from an address outside the subnet, so that answers need the gateway."""
    before = {host: snapshot(made, host) for host in made.hosts}
    uplink = json.loads(subprocess.run(["ip", "-j", "route", "get", next(iter(made.hosts.values()))["ansible_host"]], capture_output=True, text=True,
                                       check=True).stdout)[0]["dev"]
    own = gateway(made).replace("10.213.", "10.214.").rpartition(".")[0] + ".254"
    subprocess.run(["ip", "address", "add", own + "/32", "dev", uplink], check=True)
    try:
        wanted = networks(made, gateway4=gateway(made).rpartition(".")[0] + ".99")
        # Connections from there are kept apart from those of the other tests, which would wait for answers to an address that is no more
        cut_off(made, before, wanted, "--ssh-extra-args", "-o BindAddress={0} -o ControlPath={1}/from-%h".format(own, made.folder))
    finally:
        subprocess.run(["ip", "address", "del", own + "/32", "dev", uplink], check=False)


@pytest.mark.long
def test_a_bridge_over_the_wrong_link_comes_back(made):
    before = {host: snapshot(made, host) for host in made.hosts}
    cut_off(made, before, networks(made, link="eth1") + [{"name": "other", "link": "eth0"}])


FILL = """
mount -t tmpfs -o size=2m none /var/lib/kvmfleet/network
printf 'until grep -q applying %s/state.json; do sleep 0.1; done; while :; do cat /dev/zero >>%s/fill; sleep 0.2; done' \
    /var/lib/kvmfleet/network /var/lib/kvmfleet/network >/run/fill.sh
systemd-run --quiet --unit kvmfleet-test-fill sh /run/fill.sh
"""


@pytest.mark.long
def test_a_full_disk_keeps_no_host_from_coming_back(made):
    """Once the change has begun nothing can be written down any more, not even that it is taken back."""
    before = {host: snapshot(made, host) for host in made.hosts}
    try:
        for host in made.hosts:
            made.ssh(host, "sh -s", text=FILL)
        run = play(made, networks(made, addresses=[gateway(made).rpartition(".")[0] + ".250/24"]), host_network_allow_management_change=True,
                   host_network_deadline=40)
        failed = failures(run)
        assert sorted(failed) == sorted(made.hosts) and {result["reason"] for result in failed.values()} <= {"change_failed", "cut_off"}, run.output
        assert {host: snapshot(made, host) for host in made.hosts} == before
    finally:
        for host in made.hosts:
            made.ssh(host, "systemctl stop kvmfleet-test-fill; rm -f /run/fill.sh; umount /var/lib/kvmfleet/network", check=False)


@pytest.mark.long
def test_a_restart_of_the_host_takes_an_unconfirmed_change_back(made):
    """The power is cut while the host is cut off."""
    before = {host: snapshot(made, host) for host in made.hosts}
    host = next(iter(made.hosts))
    with begun(made, host, networks(made, addresses=[gateway(made).rpartition(".")[0] + ".250/24"])):
        made.stop(host)
    made.start(host)
    made.ssh(host, "ip tuntap add dev {0} mode tap && ip link set {0} master br-iso up".format(VM_PORT))
    eventually(lambda: snapshot(made, host) == before[host], "the host is as it was before the change")
    assert "restarted" in made.ssh(host, "cat", "/var/lib/kvmfleet/network/state.json").stdout
    again = play(made, networks(made), "--limit", host)
    assert (again.code, again.changed) == (0, 0), again.output


@pytest.mark.long
def test_what_a_killed_run_has_left_is_undone_by_the_next(made):
    """The run and the guard on the host are killed in the middle of a change."""
    host = next(iter(made.hosts))
    before = snapshot(made, host)
    with begun(made, host, networks(made, addresses=[gateway(made).rpartition(".")[0] + ".250/24"])):
        made.console(host, "sh", "-c", "systemctl kill -s KILL --kill-whom=all 'kvmfleet-network-*'; systemctl stop 'kvmfleet-network-*'")
    # The host is reached again, though with the change half made; the run would have confirmed it
    made.console(host, "ip", "address", "add", made.hosts[host]["ansible_host"] + "/24", "dev", "br-lan")
    again = play(made, networks(made), "--limit", host)
    assert again.code == 0, again.output
    assert "undone" in made.ssh(host, "cat", "/var/lib/kvmfleet/network/state.json").stdout or again.changed
    assert snapshot(made, host) == before


class begun:
    """A run that has begun to change a host, and is killed at the end of the block."""

    def __init__(self, lab, host, wanted):
        self.lab, self.host = lab, host
        self.file = os.path.join(lab.folder, "begun.yml")
        with open(self.file, "w", encoding="utf-8") as file:
            json.dump({"host_network_networks": wanted, "host_network_libvirt": False, "host_network_deadline": 600,
                       "host_network_allow_management_change": True}, file)

    def __enter__(self):
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"))
        self.run = subprocess.Popen([os.path.join(BIN, "ansible-playbook"), "-i", self.lab.folder, os.path.join(ROOT, "playbooks", "host_networks.yml"),
                                     "--limit", self.host, "-e", "@" + self.file], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        eventually(lambda: '"applied"' in self.lab.console(self.host, "cat", "/var/lib/kvmfleet/network/state.json").stdout, "the change is made", 180)
        return self

    def __exit__(self, *unused):
        # ansible-core's workers are in sessions of their own, and one that lives on confirms the change once it can
        workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.run.pid)], capture_output=True, text=True, check=False).stdout.split()
        for pid in [self.run.pid] + [int(word) for word in workers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run.wait()


def test_a_network_goes_once_no_vm_is_attached(made):
    run = play(made, [{"name": "iso", "state": "absent"}] + [n for n in networks(made) if n["name"] != "iso"])
    assert {result["reason"] for result in failures(run).values()} == {"network_in_use"} and len(failures(run)) == len(made.hosts), run.output
    for host in made.hosts:
        made.ssh(host, "ip", "link", "del", "dev", VM_PORT)
    run = play(made, [{"name": name, "state": "absent"} for name in ("iso", "overlay", "inside", "lan")], host_network_allow_management_change=True)
    assert run.code == 0, run.output
    for host, variables in made.hosts.items():
        links = {link["ifname"]: link for link in json.loads(made.ssh(host, "ip", "-j", "address").stdout)}
        assert sorted(links) == ["eth0", "eth1", "lo"]
        assert [a["local"] for a in links["eth0"]["addr_info"] if a["family"] == "inet"] == [variables["ansible_host"]], "the link has its own again"
        left = made.ssh(host, "grep -rl kvmfleet /etc --include='*' --exclude-dir=ssh --exclude-dir=ssl || true").stdout.split()
        assert left == [], "the site's own files are what they were"
