# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a module with SIGKILL at one of its calls of libvirt, and look at everything that could be left behind."""
from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import traceback
import uuid
import xml.etree.ElementTree as ET

import libvirt

from ansible.module_utils import basic

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata

URI = "qemu:///system"
MODULES = "ansible_collections.kvmfleet.core.plugins.modules."
LOCKS = "/run/kvmfleet"
# Where libvirt keeps files under a domain's name or UUID.
LIBVIRT_FOLDERS = ("/etc/libvirt/qemu", "/etc/libvirt/qemu/autostart", "/run/libvirt/qemu", "/run/libvirt/qemu/swtpm", "/var/lib/libvirt/qemu/nvram",
                   "/var/lib/libvirt/qemu/save", "/var/lib/libvirt/qemu/snapshot", "/var/lib/libvirt/swtpm")
MIB = 1 << 20

# These never leave the process: a kill at one of them is a kill after the call before it.
_LOCAL_PARTS = ("Free", "Ref", "Err", "Register", "GetName", "GetUUID", "GetID", "GetConnect", "initialize")


def is_call(name):
    """Whether a function of libvirt-python's C module asks the daemon."""
    return name.startswith("vir") and not any(part in name for part in _LOCAL_PARTS)


class Counter:
    """Counts calls of libvirt's C functions from all threads, and kills its process before (or right after) call number C(point)."""

    def __init__(self, point, after):
        self.point, self.after, self.count, self.lock = point, after, 0, threading.Lock()

    def wrap(self, original):
        """The function with the counter around it."""
        def call(*args):
            with self.lock:
                number = self.count
                self.count += 1
            if number == self.point and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*args)
            finally:
                if number == self.point and self.after:
                    os.kill(os.getpid(), signal.SIGKILL)
        return call

    def install(self):
        """From now on, in this process."""
        for name in dir(libvirt.libvirtmod):
            original = getattr(libvirt.libvirtmod, name)
            if callable(original) and is_call(name):
                setattr(libvirt.libvirtmod, name, self.wrap(original))


class Process:
    """A module running in a process of its own, forked from this one: its connection and its locks are its own.

    :param point: kill it at this call of libvirt; -1 for never
    :param after: after the call rather than before it
    """

    def __init__(self, module, scratch, params, point=-1, after=False):
        main = importlib.import_module(MODULES + module).main
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        try:
            os.close(self.reading)
            os.environ["TMPDIR"], tempfile.tempdir = scratch, None
            counter = Counter(point, after)
            counter.install()
            arguments = dict({"_ansible_check_mode": False, "_ansible_diff": True, "_ansible_remote_tmp": scratch}, **params)
            basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(), "legacy"
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
                main()
            with os.fdopen(writing, "wb") as stream:
                stream.write(json.dumps([counter.count, json.loads(output.getvalue())]).encode())
        except BaseException:  # noqa: BLE001 - the fork must not return into the test's own stack, whatever happens
            traceback.print_exc()
        finally:
            os._exit(0)

    def kill(self):
        """End it now, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """(number of calls, the module's result) of a process that ran to its end; None of one that was killed."""
        with os.fdopen(self.reading, "rb") as stream:
            said = stream.read()
        status = os.waitpid(self.pid, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert said, "the module ended without a result"
        calls, result = json.loads(said)
        result.pop("invocation", None)
        return calls, result


def fingerprint(path):
    """Bytes and time of a file."""
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest(), os.stat(path).st_mtime_ns


class Site:
    """A pool, a network and things of other people's on a real libvirtd, all of one test's own.

    In the pool lie a base image, an ISO image and another one's volume, on which another one's domain stands.

    :param root: where the folders of a private libvirtd really lie
    """

    IMAGE, ISO, FOREIGN = "base.qcow2", "tools.iso", "foreign.qcow2"

    # Room for all, however much else is defined on the machine.
    ROOM = {"vcpus": 1000, "memory": "1TiB"}

    def __init__(self, conn, uri=URI, root="", folder=None):
        self.conn, self.uri, self.root, self.prefix = conn, uri, root, "kfkill-" + uuid.uuid4().hex[:6]
        self.pool, self.network = self.prefix, self.prefix
        self.scratch = tempfile.mkdtemp(prefix=self.prefix + "-tmp")
        self.target = folder or tempfile.mkdtemp(prefix=self.prefix)
        os.chmod(self.target, 0o711)
        self.handle = conn.storagePoolCreateXML("<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>".format(self.pool, self.target), 0)
        self.net = conn.networkCreateXML("<network><name>{0}</name><bridge name='{1}' stp='off'/></network>".format(
            self.network, "kfk" + self.prefix[-6:]))
        self.image(self.IMAGE, 8 * MIB)
        with open(self.path(self.ISO), "wb") as stream:
            stream.write(os.urandom(64 << 10))
        self.image(self.FOREIGN, 4 * MIB)
        self.handle.refresh()
        self.stranger = self.define("stranger", self.disk(self.path(self.FOREIGN)))
        self.uuids = set()  # of VMs that a test wants to find no trace of
        self.files = set(os.listdir(self.target))
        self.before = self.foreign()

    def path(self, volume):
        """Path of a volume in the pool."""
        return os.path.join(self.target, volume)

    def image(self, name, size, data=MIB):
        """A qcow2 volume with something in it, made by someone else."""
        path = self.path(name)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
        if data:
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 {0}".format(data), path], check=True)
        return path

    def name(self, short="a"):
        """A domain's name of this test's own."""
        return "{0}-{1}".format(self.prefix, short)

    @staticmethod
    def disk(path, target="vda", form="qcow2"):
        """A disk's XML."""
        return "<disk type='file'><driver name='qemu' type='{2}'/><source file='{0}'/><target dev='{1}' bus='virtio'/></disk>".format(
            path, target, form)

    def define(self, short, devices="", extra=""):
        """A domain as someone else would define it."""
        form = "<domain type='qemu'><name>{0}</name><memory unit='MiB'>32</memory>{2}<os><type machine='q35'>hvm</type></os><devices>{1}</devices></domain>"
        return self.conn.defineXML(form.format(self.name(short), devices, extra))

    def domain(self, short="a"):
        """libvirt's handle of a domain, or None."""
        try:
            return self.conn.lookupByName(self.name(short))
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return None

    def metadata(self, short="a"):
        """Our metadata of a domain, in its persistent definition where it has one."""
        domain = self.domain(short)
        if not domain.isPersistent():
            return _metadata.find(ET.fromstring(domain.XMLDesc()))
        return _metadata.find(ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))

    @staticmethod
    def until(condition, timeout_s=30):
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def live_metadata(self, short="a"):
        """The same as the running guest's definition has it."""
        return _metadata.find(ET.fromstring(self.domain(short).XMLDesc()))

    def foreign(self):
        """All that is not ours: it has to stay as it is."""
        seen = {name: fingerprint(self.path(name)) for name in self.files}
        seen["domain"] = (self.stranger.state(), self.stranger.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        return seen

    def vm(self, short="a", **options):
        """A small VM of vm_set."""
        return dict({"name": self.name(short), "virt_type": "qemu", "vcpus": 1, "memory": "32MiB", "state": "stopped",
                     "disks": [{"name": "root", "pool": self.pool, "image": self.IMAGE}]}, **options)

    def absent(self, *shorts, **options):
        """The deletion of VMs."""
        return [dict({"name": self.name(short), "state": "absent"}, **options) for short in shorts or ("a",)]

    def start(self, vms, point=-1, after=False, **params):
        """A running process of vm_set."""
        return self.process("vm_set", point, after, **dict({"vms": vms}, **params))

    def process(self, module, point=-1, after=False, **params):
        """A running process of a module."""
        return Process(module, self.scratch, dict({"uri": self.uri, "totals": self.ROOM}, **params), point, after)

    def run(self, vms, fails=False, **params):
        """The result of vm_set, which has to succeed (or to fail)."""
        _calls, result = self.start(vms, **params).wait()
        assert bool(result.get("failed")) is fails, json.dumps(result, indent=1)
        return result

    def calls(self, vms, **params):
        """How many calls of libvirt a run of vm_set makes; it has to succeed."""
        calls, result = self.start(vms, **params).wait()
        assert not result.get("failed"), result
        return calls

    def made(self):
        """Names in the pool's folder that were not there at first: what really lies there, not what libvirt knows."""
        return sorted(set(os.listdir(self.target)) - self.files)

    def leftovers(self):
        """Everything of ours that exists anywhere on this machine."""
        found = ["domain " + d.name() for d in self.conn.listAllDomains()
                 if d.name().startswith(self.prefix) and d.name() != self.stranger.name()]
        found += ["file " + name for name in self.made()]
        self.handle.refresh()
        found += ["volume " + v.name() for v in self.handle.listAllVolumes() if v.name() not in self.files]
        found += ["temporary " + name for name in os.listdir(self.scratch)]
        found += ["lock " + name for name in os.listdir(LOCKS) if name not in ("lock", "vms") and not name.startswith("progress-")]
        return found + self.libvirt_files()

    def libvirt_files(self):
        """What libvirt keeps of our domains beside their logs."""
        found = []
        for folder in LIBVIRT_FOLDERS:
            with contextlib.suppress(FileNotFoundError):
                found += [os.path.join(folder, name) for name in os.listdir(self.root + folder)
                          if self.prefix in name and not name.startswith(self.stranger.name()) or name in self.uuids]
        return found

    def assert_clean(self):
        """Nothing of ours is left, and nothing of others' has changed."""
        assert self.leftovers() == []
        assert self.foreign() == self.before

    def clean(self, keep_folder=False):
        """Remove what the test has made, and nothing else.

        :param keep_folder: the pool's folder was given, and goes with its giver
        """
        for domain in self.conn.listAllDomains():
            if domain.name().startswith(self.prefix):
                if domain.isActive():
                    domain.destroy()
                with contextlib.suppress(libvirt.libvirtError):  # a transient one has gone by now
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                                         | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        with contextlib.suppress(libvirt.libvirtError):  # a test may have stopped it
            self.handle.destroy()
        self.net.destroy()
        if not keep_folder:
            shutil.rmtree(self.target)
        shutil.rmtree(self.scratch)
