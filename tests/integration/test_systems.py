# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role kvm_host for systems that are not here: which are refused, and what it would install, with a package manager that only answers."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import BIN, ROOT

RPM = """#!/bin/sh
shift 3
rc=0
for name; do
    case $name in qemu-img|dnsmasq) echo "$name" ;; *) echo "package $name is not installed"; rc=$((rc + 1)) ;; esac
done
exit $rc
"""
DPKG_QUERY = """#!/bin/sh
shift 3
for name; do
    case $name in qemu-utils) echo "ii  $name" ;; dnsmasq-base) echo "rc  $name" ;; *) echo "no packages found matching $name" >&2 ;; esac
done
exit 1
"""
SHOWN = {"packages": "{{ kvm_host_chosen_packages }}", "missing": "{{ kvm_host_missing | sort }}", "types": "{{ kvm_host_pool_types | unique | sort }}",
         "ntp": "{{ kvm_host_ntp_lines }}", "service": "{{ kvm_host_ntp_service }}",
         "pools": "{{ kvm_host_pool_types | unique | map('extract', kvm_host_pool_packages) | flatten | sort }}"}


SYSTEMCTL = """#!/bin/sh
shift
for unit; do case $unit in RUNNING) echo active ;; *) echo inactive ;; esac; done
exit 3
"""
WANTED = {"kvm_host_allow_emulation": True, "kvm_host_pools": {"fast": {"volume_group": "vg0"}, "shared": {"type": "netfs"}}}


def play(tmp_path, distribution, version, family, steps, arch="x86_64", running="none", shown=None, **more):
    """Steps of the role in check mode on a system of that name; the exit code, and the result of the last task."""
    for name, script in (("rpm", RPM), ("dpkg-query", DPKG_QUERY), ("systemctl", SYSTEMCTL.replace("RUNNING", running))):
        (tmp_path / name).write_text(script, encoding="ascii")
        (tmp_path / name).chmod(0o755)
    facts = {"distribution": distribution, "distribution_version": version, "distribution_major_version": version.split(".")[0], "os_family": family,
             "architecture": arch, "service_mgr": "systemd"}
    role = [{"ansible.builtin.include_role": {"name": "kvmfleet.core.kvm_host", "tasks_from": step, "public": True}} for step in steps]
    role.append({"ansible.builtin.debug": {"msg": shown or "done"}})
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{
        "hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": role, "environment": {"PATH": "{0}:/usr/bin:/bin".format(tmp_path)},
        "vars": dict({"ansible_facts": facts, "ansible_python_interpreter": sys.executable}, **WANTED, **more)}]))
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.join(ROOT, ".ansible", "collections"), ANSIBLE_NOCOLOR="1",
               ANSIBLE_STDOUT_CALLBACK="ansible.builtin.json", ANSIBLE_LOCALHOST_WARNING="0")
    done = subprocess.run([os.path.join(BIN, "ansible-playbook"), "-i", "localhost,", "--check", "play.yml"], env=env, cwd=tmp_path, capture_output=True,
                          text=True, check=False, timeout=120)
    results = [task["hosts"]["localhost"] for task in json.loads(done.stdout)["plays"][0]["tasks"]]
    return done.returncode, results[-1]["msg"]


@pytest.mark.parametrize("distribution, version, family, arch, some, none", [
    ("Debian", "12", "Debian", "x86_64", ["libvirt-daemon-system", "qemu-system-x86", "ovmf", "swtpm"], ["netcat-openbsd"]),
    ("Debian", "13", "Debian", "aarch64", ["qemu-system-arm", "qemu-efi-aarch64"], ["ovmf", "qemu-system-x86"]),
    ("Debian", "11", "Debian", "x86_64", ["netcat-openbsd"], ["swtpm"]), ("Ubuntu", "20.04", "Debian", "x86_64", ["netcat-openbsd"], ["swtpm"]),
    ("Ubuntu", "24.04", "Debian", "x86_64", ["swtpm"], ["netcat-openbsd"]),
    ("Rocky", "9.4", "RedHat", "x86_64", ["libvirt-daemon-kvm", "qemu-kvm", "edk2-ovmf"], ["qemu-system-x86"]),
    ("RedHat", "10.0", "RedHat", "aarch64", ["edk2-aarch64"], ["edk2-ovmf"])])
def test_what_each_system_calls_its_packages(tmp_path, distribution, version, family, arch, some, none):
    code, shown = play(tmp_path, distribution, version, family, ["fit", "system", "packages"], arch, shown=SHOWN,
                       kvm_host_wanted_packages="{{ kvm_host_chosen_packages }}", kvm_host_ntp_servers=["a.example", "b.example"])
    assert code == 0, shown
    assert set(some) <= set(shown["packages"]) and not set(none) & set(shown["packages"])
    there = {"qemu-utils"} if family == "Debian" else {"qemu-img", "dnsmasq"}
    assert shown["missing"] == sorted(set(shown["packages"]) - there)
    assert shown["types"] == ["dir", "logical", "netfs"]
    if family == "Debian":
        assert shown["pools"] == (["libvirt-daemon-driver-storage-logical"] if version == "13" else []) + ["lvm2", "nfs-common"]
        assert (shown["service"], shown["ntp"]) == ("systemd-timesyncd", "[Time]\nNTP=a.example b.example")
    else:
        assert shown["pools"] == ["lvm2", "nfs-utils"]
        assert (shown["service"], shown["ntp"]) == ("chronyd", "server a.example iburst\nserver b.example iburst")


@pytest.mark.parametrize("distribution, version, family", [("Debian", "10", "Debian"), ("Ubuntu", "18.04", "Debian"), ("CentOS", "8", "RedHat"),
                                                           ("openSUSE Leap", "15.6", "Suse")])
def test_other_systems_are_refused(tmp_path, distribution, version, family):
    code, said = play(tmp_path, distribution, version, family, ["fit"])
    assert code == 2 and "runs {0} {1}".format(distribution, version) in said and "Red Hat Enterprise Linux" in said


@pytest.mark.parametrize("distribution, version, family, running, missing", [
    ("Debian", "12", "Debian", "none", ["systemd-timesyncd"]), ("Debian", "12", "Debian", "chrony", []), ("Rocky", "9.4", "RedHat", "none", ["chrony"]),
    ("Rocky", "9.4", "RedHat", "ntpsec", [])])
def test_a_clock_that_is_kept_is_left_alone(tmp_path, distribution, version, family, running, missing):
    code, shown = play(tmp_path, distribution, version, family, ["system", "clock"], running=running, shown={"missing": "{{ kvm_host_missing | default([]) }}"},
                       kvm_host_machine={"container": False})
    assert (code, shown) == (0, {"missing": missing})
