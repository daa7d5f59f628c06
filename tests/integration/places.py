# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place on a real libvirtd that is a test's own, and the modules to run there."""
from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible.module_utils import basic

MODULES = "ansible_collections.kvmfleet.core.plugins.modules."
IMAGE = "image.qcow2"
IMAGE_BYTES = 8 << 20
PLENTY = {"vcpus": 4096, "memory": "64TiB"}


class ModuleFailed(AssertionError):
    """A module that was expected to succeed failed; C(result) is what it said."""

    def __init__(self, result):
        super().__init__(json.dumps(result, indent=2))
        self.result = result


def run(module, check=False, fails=False, **params):
    """Run a module as Ansible does: parameters as JSON, the result as JSON from its output, diff mode on.

    :param fails: whether it has to fail; otherwise ModuleFailed
    """
    arguments = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": tempfile.gettempdir()}
    arguments.update(params)
    main = importlib.import_module(MODULES + module).main
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        patch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)  # from core 2.19
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
            main()
    result = json.loads(output.getvalue())
    result.pop("invocation", None)
    if bool(result.get("failed")) is not fails:
        raise ModuleFailed(result)
    return result


class Place:
    """What one test has for its own: a prefix, a storage pool with a tiny image, a connection.

    C(name("web")) makes names of domains; C(network) is an isolated network, C(bridge) its bridge.
    """

    def __init__(self, conn, uri, prefix, network, bridge):
        self.conn, self.uri, self.prefix, self.network, self.bridge = conn, uri, prefix, network, bridge
        self.pool = prefix + "-pool"
        self.target = tempfile.mkdtemp(prefix=self.pool)
        os.chmod(self.target, 0o711)
        self.handle = conn.storagePoolCreateXML(
            "<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(self.pool, self.target), 0)
        self.make_volume(IMAGE, IMAGE_BYTES)

    def params(self, module, params):
        """Parameters of a module with what makes it independent of what else is on the machine."""
        if module in ("vm_set", "vm_domain", "vm_disk"):
            params = dict({"totals": PLENTY}, **params)
        return dict({"uri": self.uri}, **params)

    def run(self, module, **params):
        """Run a module here, see L(run)."""
        return run(module, **self.params(module, params))

    def name(self, short="web"):
        """A domain's name of this test's own."""
        return "{0}-{1}".format(self.prefix, short)

    def make_volume(self, name, size, form="qcow2", backing=None):
        """A volume that a user has made; its path."""
        path = os.path.join(self.target, name)
        command = ["qemu-img", "create", "-q", "-f", form] + (["-b", backing, "-F", "qcow2"] if backing else [])
        subprocess.run(command + [path, str(size)], check=True)
        self.handle.refresh()
        return path

    def path(self, volume):
        """Path of a volume."""
        return os.path.join(self.target, volume)

    def size(self, volume):
        """Virtual size of a volume in bytes."""
        return self.handle.storageVolLookupByName(volume).info()[1]

    def files(self):
        """What really lies in the pool's directory but the image."""
        return sorted(set(os.listdir(self.target)) - {IMAGE})

    def domains(self):
        """Domains of this test's own."""
        return sorted((d for d in self.conn.listAllDomains() if d.name().startswith(self.prefix + "-")), key=lambda d: d.name())

    def domain(self, short="web"):
        """libvirt's handle of a domain."""
        return self.conn.lookupByName(self.name(short))

    def xml(self, short="web", live=False):
        """A domain's XML, secrets included."""
        return ET.fromstring(self.domain(short).XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | (0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE)))

    def define(self, short, devices="", before=""):
        """Define a domain as somebody else would, without our metadata."""
        return self.conn.defineXML(
            "<domain type='qemu'><name>{0}</name><memory unit='MiB'>64</memory>{1}"
            "<os><type machine='q35'>hvm</type></os><devices>{2}</devices></domain>".format(
                self.name(short), before, devices))

    def snapshot(self):
        """All that a test's objects are, to see whether something was touched."""
        state = {}
        self.handle.refresh()
        for domain in self.domains():
            flags = libvirt.VIR_DOMAIN_XML_SECURE
            state[domain.name()] = (domain.state(), domain.autostart(), domain.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_INACTIVE),
                                    domain.XMLDesc(flags) if domain.isActive() else None)
        for handle in self.handle.listAllVolumes():
            state["volume " + handle.name()] = handle.info()[:2]
        state["files"] = {name: os.stat(self.path(name)).st_mode for name in self.files()}
        return state

    def clean(self):
        """Remove what the test has made, and nothing else."""
        for domain in self.domains():
            if domain.isActive():
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):  # a transient one has gone by now
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                                     | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        with contextlib.suppress(libvirt.libvirtError):  # a test may have stopped or removed it
            self.handle.destroy()
        with contextlib.suppress(libvirt.libvirtError):  # usually it is transient
            self.handle.undefine()
        shutil.rmtree(self.target)
