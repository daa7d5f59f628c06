# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place on the real libvirtd that is a test's own, and the modules to run there."""
from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET

import libvirt
import pytest

from ansible.module_utils import basic

URI = "qemu:///system"
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


@pytest.fixture(scope="session")
def conn():
    """The real libvirtd."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open(URI)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def network(conn):
    """An isolated network of this session's own: its name and its bridge."""
    token = uuid.uuid4().hex[:6]
    name, bridge = "kfit-net-" + token, "kfit" + token
    handle = conn.networkCreateXML("<network><name>{0}</name><bridge name='{1}' stp='off'/></network>".format(name, bridge))
    yield name, bridge
    handle.destroy()


@pytest.fixture
def place(conn, network):
    """A place on the real libvirtd."""
    made = Place(conn, URI, "kfit" + uuid.uuid4().hex[:6], *network)
    yield made
    made.clean()


@pytest.fixture(scope="session")
def run_module():
    """A function: run a module on the real libvirtd, see L(run)."""
    return run


class Converge:
    """Runs a step three times: in check mode, for real, for real again."""

    def __init__(self, place):
        self.place = place

    def __call__(self, module, again=True, guest=True, **params):
        """The result of the real run, after these have been asserted: check mode said just what it did, and touched nothing; a second run changes nothing.

        :param again: False for what happens each time, such as a restart
        :param guest: False where a guest would have to follow and there is none, which check mode cannot know
        """
        before = self.place.snapshot()
        foretold = self.place.run(module, check=True, **params)
        assert self.place.snapshot() == before, "check mode touched something"
        done = self.place.run(module, **params)
        assert _promise(foretold, guest) == _promise(done, guest)
        if not done["changed"]:
            assert self.place.snapshot() == before, "changed something and did not say so"
        if again:
            after = self.place.snapshot()
            second = self.place.run(module, **params)
            assert second["changed"] is False, second
            assert [actions for actions in _actions(second) if actions] == [], second
            assert self.place.snapshot() == after
        return done

    def refused(self, module, **params):
        """The failure of a step that must be refused, in check mode as for real, by one and the same message, with nothing touched."""
        before = self.place.snapshot()
        foretold = self.place.run(module, check=True, fails=True, **params)
        real = self.place.run(module, fails=True, **params)
        assert self.place.snapshot() == before, "a refusal touched something"
        assert foretold["msg"] == real["msg"]
        return real


def _items(result):
    return result["vms"] if "vms" in result else [result["vm"]] if "vm" in result else [result]


def _actions(result):
    return [item.get("actions", []) for item in _items(result)]


def _promise(result, guest):
    """What check mode has to say rightly."""
    keys = ["name", "changed", "actions", "takes_effect", "state", "volume", "vcpus", "memory_mib", "disks", "nics"][:None if guest else 5]
    keys += ["restart_required"] if guest else []
    items = [{key: item.get(key) for key in keys} for item in _items(result)]
    for item in items:
        # The names of volumes hold the UUID, which is made up for a new VM
        item["disks"] = [{k: re.sub("-[0-9a-f]{8}[.]", "-UUID.", v) if isinstance(v, str) else v for k, v in disk.items()} for disk in item.get("disks") or []]
        item["disks"] = sorted(item["disks"], key=lambda disk: disk["name"])  # libvirt orders them by bus
        item["nics"] = [dict(nic, target=None) for nic in item.get("nics") or []]  # the tap device is made at the start
    return {"changed": result["changed"], "diff": result.get("diff"), "items": items}


@pytest.fixture
def converge(place):
    """See L(Converge)."""
    return Converge(place)


class PrivateLibvirt:
    """A libvirtd with directories of its own in a mount namespace of its own, for what nobody else may disturb, and for stopping it."""

    FOLDERS = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/run/libvirt", "/var/log/libvirt")

    def __init__(self, root):
        self.root = root
        self.socket = os.path.join(root, "run/libvirt/libvirt-sock")
        self.uri = "qemu+unix:///system?socket=" + self.socket
        script = [
            "set -eu", "root=$1", "shift",
            'for folder in "$@"; do mkdir -p "$root$folder" "$folder"; done',
            'cp -a /etc/libvirt/. "$root/etc/libvirt/"', 'rm -rf "$root"/etc/libvirt/qemu "$root"/etc/libvirt/storage',
            'for folder in "$@"; do mount --bind "$root$folder" "$folder"; done',
            "mkdir -p /etc/libvirt/qemu/networks /var/lib/libvirt/qemu /var/lib/libvirt/images",
            "chown libvirt-qemu:libvirt-qemu /var/lib/libvirt/qemu",
            # The shell is the init of its pid namespace and reaps QEMU's orphans; libvirtd waits long for a zombie to vanish.
            # It ends when its input does, with all others in the namespace: at the latest when the tests have been killed.
            'virtlogd --pid-file "$root/virtlogd.pid" &', 'libvirtd --pid-file "$root/libvirtd.pid" &', "cat",
        ]
        self.log = open(os.path.join(root, "log"), "wb")
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
             "sh", "-c", "\n".join(script), "sh", root]
            + list(self.FOLDERS), stdin=subprocess.PIPE, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        self.conn = self._opened()

    def _opened(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    with open(self.log.name, encoding="utf-8") as log:
                        raise AssertionError("the private libvirtd did not start: " + log.read()) from None
            time.sleep(0.05)

    def stop(self):
        """End it with all that runs in it."""
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def private_libvirt_class():
    """L(PrivateLibvirt), for a test that stops its own."""
    return PrivateLibvirt


@pytest.fixture(scope="session")
def private_libvirt(tmp_path_factory):
    """A running L(PrivateLibvirt)."""
    root = tempfile.mkdtemp(prefix="kfit-libvirt")
    os.chmod(root, 0o755)
    libvirt.registerErrorHandler(lambda context, error: None, None)
    private = PrivateLibvirt(root)
    yield private
    with contextlib.suppress(libvirt.libvirtError):
        private.conn.close()
    private.stop()
    shutil.rmtree(root)


@pytest.fixture
def lonely(private_libvirt):
    """A place on a libvirtd that nobody else uses, where capacity can be told exactly."""
    made = Place(private_libvirt.conn, private_libvirt.uri, "kfit" + uuid.uuid4().hex[:6], None, None)
    yield made
    made.clean()
