# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VLANs and bonds of the role host_network: with Open vSwitch by what comes through, with the kernel's by what the configuration systems say to our files.

The kernels of the machines that build this have no such links, so nothing of the kernel's can be made here.
"""
from __future__ import annotations

import configparser
import json
import re

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet import render
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import Link
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_plan import make_plan
from ansible_collections.kvmfleet.core.tests.lab.test_host_network import failures, gateway, play, snapshot

pytestmark = pytest.mark.long

# What Open vSwitch was told; the other columns are what it found out by itself
TOLD = {"Bridge": "name,datapath_type,stp_enable,other_config,external_ids", "Port": "name,tag,trunks,vlan_mode,external_ids",
        "Interface": "name,type,options,mtu_request,external_ids"}
TAGS = {"red": 10, "blue": 20}
# A namespace for a VM, and its port as libvirt makes them
VM = """set -e
ip netns add {0}
ip link add vm-{0} type veth peer name eth0 netns {0}
ip link set vm-{0} up
ip -n {0} link set lo up
ip -n {0} link set eth0 up
ip -n {0} address add {1}/24 dev eth0
ovs-vsctl add-port ovs-eth1 vm-{0} tag={2} -- set interface vm-{0} external_ids:iface-id={0}
"""
# Names that the host does not have, so that nothing comes of the files
LINKS = [Link("lan{0}".format(n), mac="52:54:00:00:00:0{0}".format(n)) for n in range(5)]
KERNEL = [
    {"name": "pair", "type": "bond", "links": ["lan0", "lan1"], "addresses": ["10.61.0.1/24"],
     "bond": {"name": "bond0", "mode": "802.3ad", "lacp_rate": "fast", "xmit_hash_policy": "layer3+4"}},
    {"name": "spare", "type": "bond", "links": ["lan2", "lan3"], "bond": {"name": "bond1", "mode": "active-backup", "primary": "lan2"}},
    {"name": "ten", "type": "vlan", "link": "lan4", "vlan": 10, "addresses": ["10.62.0.1/24"], "mtu": 1400},
    {"name": "twenty", "type": "vlan", "link": "bond0", "vlan": 20},
]


def switched(lab, **lan):
    """Networks of Open vSwitch alone; C(lan) changes the one with the management address."""
    found = [dict({"name": "lan", "link": "eth0", "addresses": ["{{ ansible_host }}/24"], "gateway4": gateway(lab), "nameservers": [gateway(lab)]}, **lan)]
    found += [{"name": name, "type": "vlan", "link": "eth1", "vlan": tag} for name, tag in TAGS.items()]
    return [dict(network, backend="openvswitch") for network in found]


def play_switched(lab, wanted, **variables):
    return play(lab, wanted, host_network_ovs_datapath="netdev", **variables)


@pytest.fixture(scope="module")
def lab(make_lab):
    """Hosts whose links are in Open vSwitch in user space, each with a network namespace in the place of a VM on each VLAN."""
    lab = make_lab("hostovs", "--hosts", "2", "--suites", "bookworm")
    run = play_switched(lab, switched(lab))
    assert run.code == 0 and run.changed, run.output
    for number, host in enumerate(lab.hosts):
        for name, tag in TAGS.items():
            lab.ssh(host, VM.format(name, address(name, number), tag))
    return lab


def address(name, number):
    """All VMs have addresses of one subnet, so that nothing but the tag keeps them apart."""
    return "10.66.0.{0}".format(TAGS[name] + number)


def reached(lab, host, name):
    """The addresses of VMs that a VM reaches."""
    everyone = " ".join(address(other, number) for other in TAGS for number in range(len(lab.hosts)))
    return set(lab.ssh(host, "for ip in {1}; do (ip netns exec {0} ping -q -c 1 -w 10 $ip >&2 && echo $ip) & done; wait".format(name, everyone)).stdout.split())


def everyone_reaches_his_own(lab):
    for host in lab.hosts:
        for name in TAGS:
            assert reached(lab, host, name) == {address(name, number) for number in range(len(lab.hosts))}, (host, name)


def database(lab, host):
    """What Open vSwitch was told."""
    rows = {table: sorted(map(str, json.loads(lab.ssh(host, "ovs-vsctl", "--format=json", "--columns=" + columns, "list", table).stdout)["data"]))
            for table, columns in TOLD.items()}
    bridges = sorted(lab.ssh(host, "ovs-vsctl", "list-br").stdout.split())
    return rows, {bridge: sorted(lab.ssh(host, "ovs-vsctl", "list-ports", bridge).stdout.split()) for bridge in bridges}


def state(lab, host):
    """Files, links, and the database by what is in it: its file is a journal, which grows."""
    return [line for line in snapshot(lab, host).splitlines() if "/openvswitch/" not in line], database(lab, host)


def test_vms_of_a_vlan_reach_each_other_and_nobody_else(lab):
    everyone_reaches_his_own(lab)
    again = play_switched(lab, switched(lab))
    assert (again.code, again.changed) == (0, 0), again.output


def test_a_wrong_vlan_of_the_management_link_comes_back(lab):
    before = {host: state(lab, host) for host in lab.hosts}
    run = play_switched(lab, switched(lab, type="vlan", vlan=7), host_network_allow_management_change=True, host_network_deadline=40)
    failed = failures(run)
    assert sorted(failed) == sorted(lab.hosts) and {result["reason"] for result in failed.values()} == {"cut_off"}, run.output
    for host in lab.hosts:
        assert state(lab, host) == before[host], host
    everyone_reaches_his_own(lab)


@pytest.fixture(scope="module")
def workshop(make_lab):
    """A host with the tools of all configuration systems, of which only its own is at work."""
    lab = make_lab("hostval", "--hosts", "1", "--suites", "bookworm")
    lab.ssh("kvm1", "systemctl mask NetworkManager.service networking.service && apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "
            "--no-install-recommends netplan.io ifupdown ifenslave bridge-utils network-manager")
    return lab


def put(lab, system, root):
    """Our files for the kernel's VLANs and bonds, under a folder; their texts by name."""
    files = render(make_plan(KERNEL, LINKS, system))
    for path, (mode, text) in files.items():
        lab.ssh("kvm1", "install -D -m {0:o} /dev/stdin {1}{2}".format(mode, root, path), text=text)
    return {path.rpartition("/")[2]: text for path, (_mode, text) in files.items()}


def sections(text):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_netplan_makes_of_our_file_what_is_meant(workshop):
    put(workshop, "netplan", "/tmp/netplan")
    done = workshop.ssh("kvm1", "netplan generate --root-dir /tmp/netplan")
    assert done.stdout + done.stderr == ""

    def made(name):
        return sections(workshop.ssh("kvm1", "cat", "/tmp/netplan/run/systemd/network/10-netplan-" + name).stdout)
    assert made("lan4.10.netdev")["VLAN"] == {"Id": "10"} and made("bond0.20.netdev")["VLAN"] == {"Id": "20"}
    assert made("lan4.network")["Network"]["VLAN"] == "lan4.10" and made("lan4.10.network")["Network"]["Bridge"] == "br-ten"
    bond = made("bond0.netdev")["Bond"]
    assert (bond["Mode"], bond["LACPTransmitRate"], bond["TransmitHashPolicy"]) == ("802.3ad", "fast", "layer3+4")
    assert made("lan0.network")["Network"]["Bond"] == "bond0" and made("lan2.network")["Network"]["PrimarySlave"] == "true"


def test_ifupdown_would_do_with_our_file_what_is_meant(workshop):
    (text,) = put(workshop, "ifupdown", "/tmp/ifupdown").values()
    file = "/tmp/ifupdown/etc/network/interfaces.d/60-kvmfleet"
    devices = re.findall(r"^auto (\S+)$", text, re.MULTILINE)
    assert workshop.ssh("kvm1", "ifquery", "--list", "--all", "-i", file).stdout.split() == ["lo"] + devices
    done = workshop.ssh("kvm1", "ifup", "--no-act", "--verbose", "--force", "--all", "-i", file)
    calls = done.stdout + done.stderr
    for call in ("ip link add link lan4 name lan4.10 type vlan id 10", "ip link add link bond0 name bond0.20 type vlan id 20", "ip addr add 10.62.0.1/"):
        assert call in calls, calls
    assert not re.search(r"^ifup: (?!configuring)|:\d+: ", calls, re.MULTILINE), calls
    bond = workshop.ssh("kvm1", "ifquery", "-i", file, "bond0").stdout.splitlines()
    assert {"bond-slaves: lan0 lan1", "bond-mode: 802.3ad", "bond-lacp-rate: fast", "bond-xmit-hash-policy: layer3+4"} <= set(bond)


def test_networkmanager_reads_our_keyfiles_as_they_are_meant(workshop):
    for name, text in put(workshop, "networkmanager", "/tmp/nm").items():
        # It writes what it has understood and leaves out what it has not; a wrong connection is an error
        done = workshop.ssh("kvm1", "nmcli --offline connection modify connection.autoconnect-retries 1", text=text)
        assert done.stderr == "", name
        ours, theirs = sections(text), sections(done.stdout)
        for section in {"vlan", "bond"} & set(ours):
            assert {key: theirs[section].get(key) for key in ours[section]} == ours[section], name
        assert theirs["connection"].get("interface-name") == ours["connection"]["interface-name"]


def test_networkd_has_nothing_to_say_against_our_files(workshop):
    """It tells its log what it does not know. That it does so is seen by a file of ours with a mistake."""
    put(workshop, "networkd", "")
    workshop.ssh("kvm1", "cat > /etc/systemd/network/00-kvmfleet-wrong.netdev", text="[NetDev]\nName=wrong\nKind=vlan\n\n[VLAN]\nId=3\nNumber=3\n")
    try:
        workshop.ssh("kvm1", "systemctl", "restart", "systemd-networkd.service")
        log = workshop.ssh("kvm1", "journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID systemd-networkd)").stdout
    finally:
        workshop.ssh("kvm1", "rm /etc/systemd/network/00-kvmfleet-*; systemctl restart systemd-networkd")
    told = re.findall(r"00-kvmfleet-(\S+?):\d+: (.*)", log)
    assert [name for name, _text in told] == ["wrong.netdev"], log
