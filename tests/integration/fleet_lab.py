# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several KVM hosts on one machine: libvirtds in namespaces of their own, and Ansible's way into them."""
from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET

import libvirt

from ansible_collections.kvmfleet.core.plugins.module_utils import _metadata
from ansible_collections.kvmfleet.core.tests.integration.places import IMAGE, IMAGE_BYTES, Place
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import Playbooks, Run

PYTHON = "/usr/bin/python3"  # Debian's, for which there is python3-libvirt
MARK = "KVMFLEET_TEST_RUN"
POOL_PATH = "/var/lib/libvirt/images"
NETWORK = "<network><name>default</name><bridge name='virbr0' stp='off'/></network>"
POOL = "<pool type='dir'><name>default</name><target><path>{0}</path></target></pool>".format(POOL_PATH)


class PrivateLibvirt:
    """A libvirtd with directories of its own in a mount namespace of its own, for what nobody else may disturb, and for stopping it."""

    FOLDERS = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/run/libvirt", "/var/log/libvirt")

    def __init__(self, root, more_folders=(), wait=True):
        self.root = root
        self.socket = os.path.join(root, "run/libvirt/libvirt-sock")
        self.uri = "qemu+unix:///system?socket=" + self.socket
        script = [
            "set -eu", "root=$1", "shift",
            'for folder in "$@"; do mkdir -p "$root$folder" "$folder"; done',
            'cp -a /etc/libvirt/. "$root/etc/libvirt/"', 'rm -rf "$root"/etc/libvirt/qemu "$root"/etc/libvirt/storage',
            # What libvirt found out about QEMU on this machine costs a second of CPU time to find out again.
            'cp -a /var/cache/libvirt/. "$root/var/cache/libvirt/"',
            """echo "host_uuid = '$(cat /proc/sys/kernel/random/uuid)'" >>"$root/etc/libvirt/libvirtd.conf\"""",
            # libvirtd 9.0 was seen to crash in its code for cgroups (NULL in virCgroupV1) when a VM was started; nothing here needs them
            'echo "cgroup_controllers = []" >>"$root/etc/libvirt/qemu.conf"',
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
             "sh", "-c", "\n".join(script), "sh", root, *self.FOLDERS, *more_folders],
            stdin=subprocess.PIPE, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        # Not of the shell, whose pid is known inside only.
        spaces = "/proc/{0}/ns/".format(self.process.pid)
        self.enter = ["nsenter", "--mount=" + spaces + "mnt", "--net=" + spaces + "net", "--pid=" + spaces + "pid_for_children", "--"]
        if wait:
            self.conn = self.opened()

    def opened(self):
        """A connection, as soon as there is somebody to answer."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    with open(self.log.name, encoding="utf-8") as log:
                        raise AssertionError("the private libvirtd did not start: " + log.read()) from None
            time.sleep(0.05)

    def inside(self, *command):
        """Run a command where this libvirtd is; its output."""
        return subprocess.run([*self.enter, *command], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True).stdout

    def signal(self, name):
        """Send libvirtd a signal such as STOP."""
        self.inside("sh", "-c", 'kill -"$1" "$(cat "$2")"', "sh", name, os.path.join(self.root, "libvirtd.pid"))

    def stop(self):
        """End it with all that runs in it."""
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


class LabHost(Place):
    """A KVM host of the lab, as a place that is one test's alone: every domain of it counts, and its pool is C(default), at the same path on each host.

    :param host: its name in the inventory
    """

    FOLDERS = ("/run/kvmfleet", "/var/lib/kvmfleet")

    def __init__(self, root, host):
        self.host, self.root, self.hung_up = host, root, False
        os.makedirs(root, 0o755)
        self.libvirt = PrivateLibvirt(root, self.FOLDERS, wait=False)
        self.uri, self.prefix, self.network, self.bridge, self.pool = self.libvirt.uri, "", "default", "virbr0", "default"
        self.target = root + POOL_PATH
        self.python = os.path.join(root, "python")
        with open(self.python, "w", encoding="utf-8") as script:
            script.write('#!/bin/sh\nexec {0} "$@"\n'.format(" ".join(map(shlex.quote, [*self.libvirt.enter, PYTHON]))))
        os.chmod(self.python, 0o755)

    def furnish(self):
        """Wait until it answers, then make network, pool and image."""
        self.conn = self.libvirt.opened()
        for handle in (self.conn.networkDefineXML(NETWORK), self.conn.storagePoolDefineXML(POOL)):
            handle.setAutostart(True)
            handle.create()
        self.handle = handle
        self.make_volume(IMAGE, IMAGE_BYTES)

    def name(self, short="web"):
        """Names as they are: nobody else is here."""
        return short

    def domains(self):
        """Every domain."""
        return sorted(self.conn.listAllDomains(), key=lambda d: d.name())

    def ours(self):
        """The metadata of each VM that is ours, by name; VMs may come and go meanwhile."""
        found = {}
        for domain in self.domains():
            with contextlib.suppress(libvirt.libvirtError):
                meta = _metadata.find(ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
                if meta is not None:
                    found[domain.name()] = meta
        return found

    def variables(self, **more):
        """Host variables with which Ansible runs modules inside."""
        return dict({"ansible_connection": "local", "ansible_python_interpreter": self.python, "kvm_virt_type": "qemu",
                     "kvm_networks": {"default": {"network": "default"}, "pooled": {"network": "default"}}}, **more)

    @contextlib.contextmanager
    def hung(self):
        """A libvirtd that takes connections and never answers, for the length of the block."""
        self.libvirt.signal("STOP")
        self.hung_up = True
        try:
            yield
        finally:
            self.libvirt.signal("CONT")
            self.hung_up = False

    def clean(self):
        """Back to the beginning: no domains, and in the pool nothing but the image."""
        for domain in self.domains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        for name in self.files():
            os.unlink(self.path(name))
        self.handle.refresh()


class Lab:
    """KVM hosts C(kvm1), C(kvm2), ... all started at once.

    :param count: how many
    """

    def __init__(self, count=3):
        libvirt.registerErrorHandler(lambda context, error: None, None)
        self.root = tempfile.mkdtemp(prefix="kflab-")
        os.chmod(self.root, 0o755)
        self.hosts = []
        try:
            for number in range(1, count + 1):
                self.hosts.append(LabHost(os.path.join(self.root, "kvm{0}".format(number)), "kvm{0}".format(number)))
            for host in self.hosts:
                host.furnish()
        except BaseException:
            self.stop()
            raise

    def __getitem__(self, name):
        return next(host for host in self.hosts if host.host == name)

    def stop(self):
        """End all of them; whatever they made is gone."""
        for host in self.hosts:
            host.libvirt.process.stdin.close()
        for host in self.hosts:
            host.libvirt.stop()
        shutil.rmtree(self.root)

    def clean(self):
        """See L(LabHost.clean), for all."""
        for host in self.hosts:
            host.clean()

    def snapshot(self):
        """See L(Place.snapshot), for all that answer."""
        return {host.host: host.snapshot() for host in self.hosts if not host.hung_up}

    def where(self):
        """The names of all domains on each host that has some."""
        found = {host.host: [domain.name() for domain in host.domains()] for host in self.hosts if not host.hung_up}
        return {host: names for host, names in found.items() if names}

    def ours(self):
        """Name and metadata of each VM that is ours; a name that two hosts have is there twice."""
        return sorted(((name, meta) for host in self.hosts if not host.hung_up for name, meta in host.ours().items()), key=lambda item: item[0])

    def residue(self):
        """Files in the pools that no VM's metadata lists."""
        return ["{0}/{1}".format(host.host, name) for host in self.hosts
                for name in set(host.files()) - {volume.name for meta in host.ours().values() for volume in meta.volumes}]

    def files(self):
        """What lies in the pools but the image: C(host/volume)."""
        return ["{0}/{1}".format(host.host, name) for host in self.hosts for name in host.files()]


def processes_of(mark):
    """The processes that have C(NAME=value) in their environment."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/{0}/environ".format(pid), "rb") as stream:
                if mark in stream.read().split(b"\0"):
                    yield int(pid)


def kill_all(mark):
    """Kill them, and what they have started meanwhile."""
    while True:
        victims = list(processes_of(mark))
        if not victims:
            break
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Started:
    """A playbook that runs. All processes of a run, those inside the namespaces included, have its mark in their environment.

    :param mark: value of C(MARK)
    """

    def __init__(self, command, env, folder, mark):
        self.mark, self.path = "{0}={1}".format(MARK, mark).encode(), folder / (mark + ".log")
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(command, env=env, cwd=str(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    @property
    def output(self):
        """What it has said so far."""
        return self.path.read_text(errors="replace")

    def wait(self, timeout_s=900):
        """What came of it."""
        return Run(self.process.wait(timeout_s), self.output)

    def kill(self, modules=True):
        """End it all at once, as a machine ends that loses its power; without C(modules) only the control node does, and what runs on a host goes on."""
        if modules:
            kill_all(self.mark)
        else:
            for pid in list(processes_of(self.mark)):
                with contextlib.suppress(OSError):
                    with open("/proc/{0}/cmdline".format(pid), "rb") as stream:
                        if b"ansible-playbook" in stream.read():
                            os.kill(pid, signal.SIGKILL)
        self.process.wait()


class FleetPlaybooks(Playbooks):
    """Runs playbooks over a lab. Room is exact: C(vcpus) of each host, without a ratio; memory and disk there are plenty.

    :param vcpus: vcpus of each host, in their order
    """

    def __init__(self, lab, folder, vcpus=(4, 4, 4)):
        self.place, self.lab, self.folder, self.keys = lab, lab, folder, folder / "keys"
        self.catalogs = {
            "kvmfleet_images": {"debian:12": {"volume": IMAGE, "min_disk": "16MiB", "default_user": "debian"}}, "kvmfleet_shipped_images": False,
            "kvmfleet_flavors": {"tiny": {"vcpus": 1, "memory": "64MiB", "disk": "16MiB"}},
            "kvmfleet_networks": {"default": {"cidr": "192.0.2.0/24", "gateway": "192.0.2.1"}},
        }
        self.room(vcpus)

    def address_pool(self, addresses):
        """Give the network C(pooled) a pool of so many addresses; on each host it is the same as C(default)."""
        self.catalogs["kvmfleet_networks"]["pooled"] = {"cidr": "198.51.100.0/24", "gateway": "198.51.100.1", "pool": "few"}
        self.catalogs["kvmfleet_ip_pools"] = {"few": {"network": "pooled", "ranges": ["198.51.100.10-198.51.100.{0}".format(9 + addresses)]}}

    def start(self, playbook, *options, **given):
        """Start a playbook and do not wait for it, see L(Playbooks.run)."""
        mark = uuid.uuid4().hex
        command, env = self.command(playbook, *options, environment={MARK: mark}, **given)
        return Started(command, env, self.folder, mark)

    def room(self, vcpus, **more):
        """Write the inventory with so many vcpus on each host, every host being a zone C(zone-a), C(zone-b), ... in region C(here).

        :param more: per host name further variables
        """
        self.inventory({host.host: host.variables(**dict({
            "kvm_totals": {"vcpus": count, "memory": "1TiB", "disk": "1TiB"}, "kvm_ratios": {"vcpus": 1.0, "memory": 1.0, "disk": 1.0},
            "kvm_region": "here", "kvm_zone": "zone-" + "abcdefghijklmnopqrstuvwxyz"[number]}, **more.get(host.host, {})))
            for number, (host, count) in enumerate(zip(self.lab.hosts, vcpus))})
