# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real domains whose guest is one boot sector: they boot in a second, and do one thing with power requests."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ET

import libvirt

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata

URI = "qemu:///system"
PREFIX = "kfpow-"
IMAGES = "/var/lib/libvirt/images"
COLLECTIONS = os.path.abspath(os.path.join(os.path.dirname(_metadata.__file__), "..", "..", "..", "..", ".."))

# 16-bit code. The ACPI registers are where SeaBIOS puts them: PM1a status 0x600, enable 0x602, control 0x604.
GUESTS = {
    # Ignores everything: disables interrupts and halts.
    "stubborn": bytes.fromhex("fa f4 eb fd"),
    # Enables the power button, waits until it is pressed, then powers off by ACPI (S5).
    "obedient": bytes.fromhex("fa ba0206 b80001 ef ba0006 ed a90001 74fa ba0406 b80020 ef f4"),
    # Tells the pvpanic device that its kernel has panicked.
    "panicking": bytes.fromhex("fa ba0505 b001 ee f4 ebfd"),
}

RUNNER = """
import sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
import importlib
importlib.import_module("ansible_collections.kvmfleet.core.plugins.modules." + sys.argv[1]).main()
"""


def run_module(which, check=False, diff=False, **args):
    """The result of a module, run in a process of its own as Ansible does."""
    args.update(_ansible_check_mode=check, _ansible_diff=diff, uri=URI)
    done = subprocess.run([sys.executable, "-c", RUNNER, which], input=json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=COLLECTIONS), check=False, timeout=300)
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout)


def eventually(condition, timeout_s=60):
    """Wait until a condition on a real machine holds; fails the test where it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in {0} s".format(timeout_s)
        time.sleep(0.05)


class Guests:
    """The domains of one test, and the end of them."""

    def __init__(self, conn):
        self.conn, self.made, self.files = conn, [], []
        self.run = uuid.uuid4().hex[:6]

    def xml(self, name, guest=None, meta=None, nics=(), disks=()):
        """A small q35 domain of type qemu."""
        root = ET.Element("domain", type="qemu")
        ET.SubElement(root, "name").text = name
        ET.SubElement(root, "memory", unit="MiB").text = "64"
        ET.SubElement(root, "vcpu").text = "1"
        ET.SubElement(ET.SubElement(root, "os"), "type", arch="x86_64", machine="q35").text = "hvm"
        ET.SubElement(ET.SubElement(root, "features"), "acpi")
        ET.SubElement(root, "on_crash").text = "preserve"
        devices = ET.SubElement(root, "devices")
        paths = ([self._boot_sector(name, guest)] if guest else []) + list(disks)
        for letter, path in zip("abcd", paths):
            disk = ET.SubElement(devices, "disk", type="file", device="disk")
            ET.SubElement(disk, "driver", name="qemu", type="raw")
            ET.SubElement(disk, "source", file=path)
            ET.SubElement(disk, "target", dev="vd" + letter, bus="virtio")
        for mac, network in nics:
            nic = ET.SubElement(devices, "interface", type="network")
            ET.SubElement(nic, "mac", address=mac)
            ET.SubElement(nic, "source", network=network)
            ET.SubElement(nic, "model", type="virtio")
        ET.SubElement(devices, "panic", model="isa")
        ET.SubElement(devices, "memballoon", model="none")
        ET.SubElement(devices, "console", type="pty")
        ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
        if meta is not None:
            _metadata.store(root, meta)
        return ET.tostring(root, encoding="unicode")

    def _boot_sector(self, name, guest):
        path = os.path.join(IMAGES, name + ".img")
        code = GUESTS[guest]
        self.files.append(path)
        with open(path, "wb") as file:
            file.write(code + bytes(510 - len(code)) + b"\x55\xaa" + bytes(1 << 20))
        return path

    def name(self, label):
        """A name of this run's own."""
        return "{0}{1}-{2}".format(PREFIX, self.run, label)

    def define(self, label, guest=None, meta=None, **kwargs):
        """A defined domain; C(meta) None makes it one of ours in phase ready, False makes it foreign."""
        if meta is None:
            meta = _metadata.VmMetadata()
        domain = self.conn.defineXML(self.xml(self.name(label), guest, meta or None, **kwargs))
        self.made.append(domain)
        return domain

    def transient(self, label, guest=None):
        """A domain without definition, running."""
        domain = self.conn.createXML(self.xml(self.name(label), guest, _metadata.VmMetadata()))
        self.made.append(domain)
        return domain

    def clean(self):
        """Remove all of them, whatever state they are in."""
        for domain in self.made:
            try:
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
        for path in self.files:
            os.unlink(path)
