# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/lab.sh: hosts are what they are said to be, come back, and go without a trace."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from ansible_collections.kvmfleet.core.tests.lab.real_hosts import RealHosts, lab_script

# Asks by ARP who has an address, on a link, and says whether anybody answers
WHO_HAS = """
import socket, struct, sys, time
link, address = sys.argv[1:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
s.bind((link, 0))
mac = s.getsockname()[4]
own = socket.inet_aton(sys.argv[1] == "eth0" and socket.gethostbyname(socket.gethostname()) or "0.0.0.0")
deadline = time.monotonic() + 3
while time.monotonic() < deadline:
    s.send(b"\\xff" * 6 + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + own + b"\\0" * 6 + socket.inet_aton(address))
    s.settimeout(0.5)
    try:
        packet = s.recv(64)
        while not (packet[20:22] == b"\\0\\2" and packet[28:32] == socket.inet_aton(address)):
            packet = s.recv(64)
        print("answered")
        break
    except socket.timeout:
        pass
else:
    print("nobody")
"""


def ip(*arguments):
    return json.loads(subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=True).stdout or "[]")


@pytest.fixture(scope="module")
def lab(make_lab):
    return make_lab("lab", "--hosts", "2")


def test_hosts_are_bare_debian(lab):
    for host, release in (("kvm1", "12"), ("kvm2", "13")):
        assert 'VERSION_ID="{0}"'.format(release) in lab.ssh(host, "cat", "/etc/os-release").stdout
        assert lab.ssh(host, "systemctl", "is-system-running").stdout.strip() == "running"
        assert lab.ssh(host, "command -v virsh qemu-img", check=False).stdout == ""
        links = {link["ifname"]: link for link in json.loads(lab.ssh(host, "ip", "-j", "address").stdout)}
        assert sorted(links) == ["eth0", "eth1", "lo"]
        assert [a["local"] for a in links["eth0"]["addr_info"] if a["family"] == "inet"] == [lab.hosts[host]["ansible_host"]]
        assert links["eth1"]["addr_info"] == []


def test_hosts_reach_each_other_on_both_links(lab):
    lab.ssh("kvm1", "ping", "-c", "1", "-w", "20", "kvm2")
    for host in ("kvm1", "kvm2"):
        lab.ssh(host, "ip address add {0} dev eth1 && ip link set eth1 up".format(lab.hosts[host]["lab_vm_address"]))
    lab.ssh("kvm1", "ping", "-c", "1", "-w", "20", lab.hosts["kvm2"]["lab_vm_address"].split("/")[0])
    for host in ("kvm1", "kvm2"):
        lab.ssh(host, "ip address flush dev eth1 && ip link set eth1 down")


def test_a_host_key_that_is_not_the_hosts_own_is_refused(lab):
    known = os.path.join(lab.folder, ".ssh", "known_hosts")
    with open(known, encoding="utf-8") as file:
        right = file.read()
    try:
        with open(known, "w", encoding="utf-8") as file:
            keys = [line.split()[2] for line in right.splitlines()]
            file.write(right.replace(keys[0], keys[1]))
        done = lab.ssh("kvm1", "true", check=False)
        assert done.returncode != 0 and "HOST IDENTIFICATION HAS CHANGED" in done.stderr
    finally:
        with open(known, "w", encoding="utf-8") as file:
            file.write(right)


def test_the_machine_answers_for_its_address_in_the_lab_only(lab):
    """A host that got its network wrong must not find the machine by another of its addresses."""
    gateway = json.loads(lab.ssh("kvm1", "ip", "-j", "route", "show", "default").stdout)[0]["gateway"]
    others = [a["local"] for link in ip("-4", "address") for a in link["addr_info"] if a["scope"] == "global" and a["local"] != gateway]
    assert others
    lab.ssh("kvm1", "cat >/root/who_has.py", text=WHO_HAS)
    assert lab.ssh("kvm1", "python3", "/root/who_has.py", "eth0", gateway).stdout == "answered\n"
    assert lab.ssh("kvm1", "python3", "/root/who_has.py", "eth0", others[0]).stdout == "nobody\n"
    lab.ssh("kvm1", "ip link set eth1 up")
    assert lab.ssh("kvm1", "python3", "/root/who_has.py", "eth1", gateway).stdout == "nobody\n"
    lab.ssh("kvm1", "ip link set eth1 down")


def test_the_inventory_serves_ansible(lab, tmp_path):
    (tmp_path / "ping.yml").write_text("[{hosts: kvm_hosts, gather_facts: false, tasks: [ansible.builtin.ping: ]}]\n")
    run = lab.does(str(tmp_path / "ping.yml"))
    assert re.findall(r"^(kvm\d) +: ok=1 ", run.output, re.MULTILINE) == ["kvm1", "kvm2"]


def test_up_again_leaves_running_hosts_alone(lab):
    def boots():
        return [lab.ssh(host, "systemctl", "show", "--property=UserspaceTimestampMonotonic").stdout for host in lab.hosts]

    before = boots()
    lab.up()
    assert boots() == before


def test_up_with_other_hosts_is_refused(lab):
    done = lab_script("up", "--name", lab.name, "--hosts", "1", check=False)
    assert done.returncode == 1 and "is there with other hosts" in done.stderr and "Traceback" not in done.stderr


def test_a_host_comes_back_with_its_disk(lab):
    lab.ssh("kvm1", "touch /root/kept")
    lab.stop("kvm1")
    done = lab_script("status", "--name", lab.name, "--folder", lab.folder, check=False)
    assert done.returncode == 1 and "stopped" in done.stdout
    lab.start("kvm1")
    lab.ssh("kvm1", "test -e /root/kept && ping -c 1 -w 20 kvm2")


def test_up_mends_what_a_kill_has_left(lab):
    state = subprocess.run(["podman", "inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", lab.container("kvm2")], capture_output=True, text=True,
                           check=True).stdout.split()
    for pid in state:
        os.kill(int(pid), signal.SIGKILL)
    lab.up()
    lab.ssh("kvm2", "ping", "-c", "1", "-w", "20", "kvm1")


def test_down_leaves_nothing(make_lab):
    lab = make_lab("gone", "--hosts", "1")
    with open("/var/lib/kvmfleet/lab/{0}/lab.json".format(lab.name), encoding="utf-8") as file:
        subnet = json.load(file)["subnet"]
    uplinks = {route["dev"] for route in ip("route", "show", subnet)}
    assert len(uplinks) == 1
    lab.down()
    assert not uplinks & {link["ifname"] for link in ip("link")}
    assert ip("route", "show", subnet) == []
    assert lab.name not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert subnet not in subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert not os.path.exists(lab.folder) and not os.path.exists("/var/lib/kvmfleet/lab/" + lab.name)
    containers = subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True).stdout.split()
    assert lab.container("kvm1") not in containers
    assert RealHosts(lab.name, lab.folder).down().returncode == 0  # nothing to do is no error
