# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs: several real hosts on this machine, as containers with systemd and sshd on bare Debian.

A host has two links. `eth0` is for management: the machine is its gateway and the control node. `eth1` is for VM traffic: it has no address and no
configuration (NetworkManager asks for one by DHCP, as it does), and the machine is not on it. Both are in switches of the lab's own network namespace, so
that neither the machine's firewall nor its addresses play a part in what hosts say to each other. podman makes no network (it would give eth0 its address
from outside): the host's own configuration system gives eth0 its address, as on any Debian, and can take it away. Which system, --network-system says:

    networkd         /etc/systemd/network/80-eth0.network (the default)
    ifupdown         /etc/network/interfaces, as Debian's installer writes it
    netplan          /etc/netplan/50-lab.yaml
    networkmanager   /etc/NetworkManager/system-connections/eth0.nmconnection

Several may be named; the hosts get them in turn. --suites names Debian releases: the last ones for the last hosts, the first one for all before.

Labs have names, and each its own subnet, so they stand beside each other; a name means the same lab for every checkout. What a lab is stands in
/var/lib/kvmfleet/lab/NAME; whatever else is found of it (after a crash, a kill, a reboot) is looked at before it is used.
"""
from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
STATE = Path("/var/lib/kvmfleet/lab")
LOCKS = Path("/run/lock")
CONF = Path("/proc/sys/net/ipv4/conf")
# The link on which the first lab has switched forwarding on
FORWARD_BEFORE = STATE / "forwarding"
POOL = ipaddress.ip_network("10.213.0.0/16")   # a lab takes a free /24 of it
VM_POOL = "10.214"                             # the hosts' addresses for eth1, for those who want some
LABEL = "kvmfleet.lab"
MARK = "# The lab"                             # how the inventory of a lab begins
REPOSITORY = "localhost/kvmfleet-lab"
PATIENCE_S = 600.0                             # for hosts to boot; a busy machine takes long

SYSTEMS: Mapping[str, Tuple[str, ...]] = {
    "networkd": (),
    "ifupdown": ("ifupdown", "bridge-utils"),
    "netplan": ("netplan.io",),
    "networkmanager": ("network-manager",),
}
# What Debian calls standard and has to do with our trade; everything else is for the roles to install
PACKAGES = ("systemd-sysv", "udev", "dbus", "kmod", "openssh-server", "python3", "ca-certificates", "iproute2", "iputils-ping", "procps", "less")
TOOLS = {"podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap", "nft": "nftables", "ip": "iproute2", "ssh": "openssh-client",
         "ssh-keygen": "openssh-client"}

# Timers that would take the lock of dpkg at a moment of their own, gettys that would share the machine's consoles
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "getty@.service",
          "console-getty.service", "serial-getty@.service")
IMAGE_FILES = {
    # The kernel is the machine's: a host looks at its links and /dev/kvm, and at nobody's disks
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf":
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --action=add --subsystem-match=net --subsystem-match=misc\n",
    # NetworkManager leaves veth links alone, unless told that this one is the machine's network card
    "etc/udev/rules.d/90-lab.rules": 'SUBSYSTEM=="net", KERNEL=="eth[0-9]", ENV{NM_UNMANAGED}="0"\n',
}
UDEV_OFF = ("60-block.rules", "60-persistent-storage.rules", "60-persistent-storage-tape.rules", "64-btrfs.rules")


class LabError(Exception):
    """What a person is told."""


def run(argv: Sequence[str], text: Optional[str] = None, timeout_s: float = 180, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command; LabError with its output where it fails or does not end."""
    try:
        done = subprocess.run(list(argv), input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=None if text is not None else subprocess.DEVNULL,
                              universal_newlines=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise LabError("'{0}' has not ended after {1:.0f} s".format(shlex.join(argv), timeout_s)) from None
    if check and done.returncode:
        raise LabError("'{0}' failed (exit code {1}): {2}".format(shlex.join(argv), done.returncode, (done.stderr or done.stdout).strip()[-2000:]))
    return done


def podman(*argv: str, timeout_s: float = 180, check: bool = True) -> str:
    """podman with runc: crun refuses the hybrid cgroups of some machines."""
    return run(["podman", "--log-level=error", "--runtime=runc"] + list(argv), timeout_s=timeout_s, check=check).stdout.strip()


def default_name() -> str:
    """The lab that C(make lab) makes; another one where the machine has one of that name already."""
    return os.environ.get("KVMFLEET_LAB") or "lab"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Wait for a lock of this machine."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with open(LOCKS / "kvmfleet-lab-{0}.lock".format(name), "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(text)
    part.replace(path)


# The machine

def check_machine() -> None:
    """Say in one message all that this machine lacks."""
    missing = []
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if packages:
        missing.append("packages: apt-get install --no-install-recommends {0}".format(" ".join(packages)))
    elif run(["ip", "link", "add", "kfl-try", "type", "veth", "peer", "name", "kfl-try2"], check=False).returncode:
        # Left over from a try that was killed, or not to be had
        if run(["ip", "link", "delete", "kfl-try"], check=False).returncode:
            missing.append("links of type veth in the kernel (module veth)")
    else:
        run(["ip", "link", "delete", "kfl-try"])
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    groups = [m for m in mounts if m[2] == "cgroup2" and m[1] == "/sys/fs/cgroup" or m[2] == "cgroup" and "name=systemd" in m[3].split(",")]
    if not groups:
        missing.append("control groups for systemd: /sys/fs/cgroup as cgroup2, or a cgroup mounted with name=systemd")
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="utf-8") and run(["modprobe", "overlay"], check=False).returncode:
        missing.append("the file system overlay in the kernel")
    if missing:
        raise LabError("This machine cannot run a lab. It lacks " + "; ".join(missing))


def forget_the_last_boot() -> None:
    """Let podman look anew where it still believes in what ran before the last boot: it keeps that in /run, which not every machine empties."""
    alive = Path("/run/libpod/alive")
    if "conmon" in programs():
        return  # a container runs; the clock may have been set since the boot
    booted = next(float(line.split()[1]) for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line.startswith("btime "))
    with contextlib.suppress(FileNotFoundError):
        if alive.stat().st_mtime < booted - 5:
            alive.unlink()


@dataclass(frozen=True)
class Mirror:
    """Where packages come from, as this machine's apt has it."""

    debian: str
    security: str
    options: Tuple[Tuple[str, str], ...]

    def sources(self, suite: str) -> List[str]:
        """Lines of sources.list."""
        return ["deb {0} {1} main".format(self.debian, suite), "deb {0} {1}-updates main".format(self.debian, suite),
                "deb {0} {1}-security main".format(self.security, suite)]


def _configured_sources() -> Iterator[Tuple[str, str]]:
    """(URI, suite) of what apt is configured with, in both formats."""
    parts = Path("/etc/apt/sources.list.d")
    for path in [Path("/etc/apt/sources.list")] + sorted(parts.glob("*.list")):
        if path.exists():
            for match in re.finditer(r"(?m)^deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", path.read_text(encoding="utf-8")):
                yield match.group(1), match.group(2)
    for path in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            fields = {key.lower(): value.split() for key, value in re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", stanza)}
            if fields.get("enabled", ["yes"])[0].lower() != "no":
                for uri in fields.get("uris", []):
                    for suite in fields.get("suites", []):
                        yield uri, suite


def mirror_of_this_machine() -> Mirror:
    """Debian's own addresses where this machine has none for Debian; KVMFLEET_MIRROR overrules."""
    debian = security = ""
    for uri, suite in _configured_sources():
        if re.fullmatch(r"https?://\S+", uri) and re.fullmatch(r"(bullseye|bookworm|trixie|forky|sid|(old)*stable|testing)(-security|/updates)?", suite):
            if suite.endswith(("-security", "/updates")):
                security = security or uri
            else:
                debian = debian or uri
    wanted = re.compile(r'^(Acquire::(?:https?::Proxy|Check-Valid-Until|Check-Date)) "(.+)";$')
    options = {m.group(1): m.group(2) for m in map(wanted.match, run(["apt-config", "dump"]).stdout.splitlines() if shutil.which("apt-config") else []) if m}
    for scheme in ("http", "https"):
        proxy = os.environ.get(scheme + "_proxy")
        if proxy:
            options.setdefault("Acquire::{0}::Proxy".format(scheme), proxy)
    return Mirror(os.environ.get("KVMFLEET_MIRROR") or debian or "http://deb.debian.org/debian", security or "http://deb.debian.org/debian-security",
                  tuple(sorted(options.items())))


def nameservers() -> List[str]:
    """This machine's, as far as others can use them."""
    found: List[str] = []
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if path.exists() and not found:
            found = [a for a in re.findall(r"(?m)^nameserver\s+(\S+)", path.read_text(encoding="utf-8")) if not re.match(r"127\.|::1$|fe80", a)]
    return found


def names_in_hosts_file() -> List[str]:
    """Lines of /etc/hosts that mean the same on other hosts."""
    own = {os.uname().nodename}
    return [line for line in Path("/etc/hosts").read_text(encoding="utf-8").splitlines()
            if re.match(r"\d", line) and not line.startswith(("127.", "0.")) and not own & set(line.split()[1:])]


# Images

def image_name(suite: str, system: str, mirror: Mirror) -> str:
    """The image of a suite and a configuration system. Its tag changes with everything that it is made of."""
    recipe = json.dumps([PACKAGES, SYSTEMS[system], MASKED, IMAGE_FILES, UDEV_OFF, mirror.sources(suite), _mmdebstrap(suite, system, mirror, "", "")])
    return "{0}:{1}-{2}-{3}".format(REPOSITORY, suite, system, hashlib.sha256(recipe.encode()).hexdigest()[:12])


def _mmdebstrap(suite: str, system: str, mirror: Mirror, overlay: str, target: str) -> List[str]:
    clean = "rm -f \"$1\"/etc/ssh/ssh_host_* \"$1\"/etc/hostname \"$1\"/etc/resolv.conf; : >\"$1\"/etc/machine-id"
    enable = {"networkd": "systemctl --root=\"$1\" enable systemd-networkd", "netplan": "systemctl --root=\"$1\" enable systemd-networkd"}
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=tar", "--include=" + ",".join(PACKAGES + SYSTEMS[system]),
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--aptopt=Acquire::Retries \"3\"",
            "--customize-hook=copy-in {0}/etc /".format(overlay), "--customize-hook=" + clean]
    argv += ["--customize-hook=" + enable[system]] if system in enable else []
    argv += ["--aptopt={0} \"{1}\"".format(key, value) for key, value in mirror.options]
    return argv + [suite, target] + mirror.sources(suite)


def make_image(suite: str, system: str, mirror: Mirror) -> str:
    """The name of the image, made if it is not there."""
    name = image_name(suite, system, mirror)
    with lock("image-{0}-{1}".format(suite, system)):
        if not podman("images", "--quiet", name):
            began = time.monotonic()
            say("Making the image of {0} with {1} (once; about a minute)".format(suite, system))
            with tempfile.TemporaryDirectory(prefix="kvmfleet-lab-", dir="/var/tmp") as work:
                overlay, tar = Path(work, "overlay"), Path(work, "image.tar")
                for path, text in IMAGE_FILES.items():
                    write(overlay / path, text)
                for folder, units in (("etc/systemd/system", MASKED), ("etc/udev/rules.d", UDEV_OFF)):
                    for unit in units:
                        (overlay / folder / unit).symlink_to("/dev/null")
                run(_mmdebstrap(suite, system, mirror, str(overlay), str(tar)), timeout_s=1200)
                podman("import", "--quiet", "--change", "CMD [\"/sbin/init\"]", str(tar), name, timeout_s=600)
            say("... made in {0:.0f} s".format(time.monotonic() - began))
    return name


def remove_images() -> None:
    """Remove the images that no host uses."""
    used = set(podman("ps", "--all", "--format", "{{.Image}}").split())
    for name in podman("images", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split():
        if name not in used:
            podman("rmi", name)


# A lab

@dataclass(frozen=True)
class Host:
    """One host of a lab."""

    name: str
    suite: str
    system: str
    address: str
    vm_address: str


def short(text: str, length: int = 8) -> str:
    """A name for devices and tables, which may not be long."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def mac(*parts: str) -> str:
    """A MAC address that stays the same when a host is started again."""
    digits = short("/".join(parts), 10)
    return ":".join(["02"] + [digits[i:i + 2] for i in range(0, 10, 2)])


def in_turn(count: int, suites: Sequence[str], systems: Sequence[str]) -> List[Tuple[str, str]]:
    """Suite and system of each host."""
    suites = ([suites[0]] * (count - len(suites)) + list(suites))[:count]
    return [(suites[i], systems[i % len(systems)]) for i in range(count)]


class Lab:
    """A lab and what is known of it."""

    def __init__(self, name: str, folder: Optional[Path] = None) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise LabError("--name {0}: use lower-case letters, digits and '-', at most 31".format(name))
        self.name = name
        self.folder = folder or (ROOT / "lab" if name == default_name() else ROOT / ".ansible" / "labs" / name)
        self.state = STATE / name
        self.netns = "kvmfleet-lab-{0}".format(name)
        self.uplink = "kfl-{0}".format(short(name))
        self.table = "kvmfleet_lab_{0}".format(short(name))
        self.subnet = ""
        self.hosts: List[Host] = []
        self.made: List[str] = []
        self.folders: List[str] = []
        with contextlib.suppress(FileNotFoundError):
            record = json.loads((self.state / "lab.json").read_text(encoding="utf-8"))
            self.subnet, self.made, self.folders = record["subnet"], record["made"], record["folders"]
            self.hosts = [Host(**h) for h in record["hosts"]]

    def save(self) -> None:
        """Keep what is known."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        write(self.state / "lab.json", json.dumps({"subnet": self.subnet, "hosts": [asdict(h) for h in self.hosts], "made": self.made,
                                                   "folders": self.folders}, indent=1) + "\n")

    @property
    def gateway(self) -> str:
        """The machine's address in the lab."""
        return str(ipaddress.ip_network(self.subnet)[1])

    def container(self, host: Host) -> str:
        """What podman calls a host."""
        return "{0}-{1}".format(self.name, host.name)

    def host(self, name: str) -> Host:
        """A host by its name."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError("{0}: the lab '{1}' has no such host; it has {2}".format(name, self.name, ", ".join(h.name for h in self.hosts) or "none"))

    # Making it

    def settle(self, wanted: Sequence[Tuple[str, str]]) -> None:
        """Fix which hosts the lab has. One that is there already has to be the same."""
        if self.hosts and [(h.suite, h.system) for h in self.hosts] != list(wanted):
            raise LabError("The lab '{0}' is there with other hosts ({1}). Take it down first (lab.sh down --name {0}), or choose another --name".format(
                self.name, ", ".join("{0}: {1}, {2}".format(h.name, h.suite, h.system) for h in self.hosts)))
        if not self.hosts:
            for container in podman("ps", "--all", "--quiet", "--filter", "label={0}={1}".format(LABEL, self.name)).split():
                remove_container(container)
            self.subnet = free_subnet()
            third = self.subnet.split(".")[2]
            self.hosts = [Host("kvm{0}".format(n), suite, system, "{0}{1}".format(self.subnet.rpartition(".")[0] + ".", 10 + n),
                               "{0}.{1}.{2}/24".format(VM_POOL, third, 10 + n)) for n, (suite, system) in enumerate(wanted, 1)]
        if str(self.folder) not in self.folders:
            if not of_a_lab(self.folder) and any((self.folder / name).exists() for name in ("hosts.yml", ".ssh")):
                raise LabError("--folder {0}: has a hosts.yml or a .ssh that is not a lab's. Name an empty folder".format(self.folder))
            self.folders.append(str(self.folder))
        self.save()

    def make_network(self) -> None:
        """The lab's two switches, the machine's place in the first, and the way out through it."""
        if self.netns not in namespaces():
            run(["ip", "netns", "add", self.netns])
        inside = ["ip", "-n", self.netns]
        have = links(self.netns)
        for switch in ("mgmt", "vm"):
            if switch not in have:
                # Without snooping multicast reaches every port: nobody here sends the queries that snooping lives on
                run(inside + ["link", "add", switch, "type", "bridge", "mcast_snooping", "0"])
            run(inside + ["link", "set", switch, "up"])
        run(inside + ["link", "set", "lo", "up"])
        if "uplink" not in have or self.uplink not in links():
            run(["ip", "link", "delete", self.uplink], check=False)  # half of a pair, usually not there
            run(["ip", "link", "add", self.uplink, "type", "veth", "peer", "name", "uplink", "netns", self.netns])
        run(inside + ["link", "set", "uplink", "master", "mgmt", "up"])
        # The machine answers for its address in this lab and no other one, or a host that got its network wrong would still find it
        for key, value in (("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "1")):
            (CONF / self.uplink / key).write_text(value, encoding="ascii")
        run(["ip", "address", "replace", "{0}/24".format(self.gateway), "dev", self.uplink])
        run(["ip", "link", "set", self.uplink, "up"])
        self.open_way_out()

    def open_way_out(self) -> None:
        """Masquerade towards the mirror. Segments are cut to fit the machine's own link, whose MTU may be the smaller one."""
        rules = """
            table ip {table} {{ }}
            delete table ip {table}
            table ip {table} {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    ip saddr {subnet} oifname != "{uplink}" masquerade
                }}
                chain forward {{
                    type filter hook forward priority mangle;
                    iifname "{uplink}" tcp flags syn tcp option maxseg size set rt mtu
                }}
            }}
        """.format(table=self.table, subnet=self.subnet, uplink=self.uplink)
        run(["nft", "-f", "-"], text=rules)
        out = [r["dev"] for r in json.loads(run(["ip", "-4", "-j", "route", "show", "default"]).stdout or "[]")]
        with lock("forward"):
            for link in [self.uplink] + out:
                switch = CONF / link / "forwarding"
                if switch.read_text(encoding="ascii").strip() == "0":
                    switch.write_text("1", encoding="ascii")
                    if link != self.uplink:
                        write(FORWARD_BEFORE, link + "\n")

    def make_keys(self) -> None:
        """The user's key, and the key of each host: made here, so that they are known before the first connection."""
        for name in ["id_ed25519"] + ["host_" + h.name for h in self.hosts]:
            path = self.state / name
            if not path.exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kvmfleet-lab-{0}".format(self.name), "-f", str(path) + ".part"])
                os.replace(str(path) + ".part.pub", str(path) + ".pub")
                os.replace(str(path) + ".part", path)

    def make_host(self, host: Host, mirror: Mirror) -> None:
        """The container, with everything on its disk that an installer would have asked for; not started."""
        container = self.container(host)
        if host.name in self.made and podman("ps", "--all", "--quiet", "--filter", "name=^{0}$".format(container)):
            return
        self.made = [n for n in self.made if n != host.name]
        self.save()
        if podman("ps", "--all", "--quiet", "--filter", "name=^{0}$".format(container)):
            remove_container(container)
        podman("create", "--name", container, "--hostname", host.name, "--label", "{0}={1}".format(LABEL, self.name), "--network=none",
               "--no-hosts", "--systemd=always", "--privileged", "--pids-limit=-1", *limits(), "--stop-signal=SIGRTMIN+3",
               image_name(host.suite, host.system, mirror), "/sbin/init")
        with tempfile.TemporaryDirectory(prefix="kvmfleet-lab-") as work:
            for path, (mode, text) in self.files(host, mirror).items():
                write(Path(work, path), text, mode)
            os.chmod(work, 0o755)
            for folder in [p for p in Path(work).rglob("*") if p.is_dir()]:
                folder.chmod(0o700 if folder.name in (".ssh", "root", "system-connections") else 0o755)
            podman("cp", work + "/.", container + ":/")
        self.made.append(host.name)
        self.save()

    def files(self, host: Host, mirror: Mirror) -> Dict[str, Tuple[int, str]]:
        """What is on a host's disk besides the image."""
        proxy = {key: value.replace(urllib.parse.urlsplit(value).hostname or "", self.gateway, 1)
                 if urllib.parse.urlsplit(value).hostname in ("localhost", "127.0.0.1") else value for key, value in mirror.options}
        hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"] + names_in_hosts_file()
        hosts += ["{0} {1}".format(h.address, h.name) for h in self.hosts]
        files = {
            "etc/hostname": (0o644, host.name + "\n"),
            "etc/hosts": (0o644, "\n".join(hosts) + "\n"),
            "etc/resolv.conf": (0o644, "".join("nameserver {0}\n".format(a) for a in nameservers())),
            "etc/apt/apt.conf.d/90lab": (0o644, "".join('{0} "{1}";\n'.format(k, v) for k, v in sorted(proxy.items()))),
            "root/.ssh/authorized_keys": (0o600, (self.state / "id_ed25519.pub").read_text(encoding="utf-8")),
            "etc/ssh/ssh_host_ed25519_key": (0o600, (self.state / ("host_" + host.name)).read_text(encoding="utf-8")),
            "etc/ssh/ssh_host_ed25519_key.pub": (0o644, (self.state / ("host_{0}.pub".format(host.name))).read_text(encoding="utf-8")),
        }
        files.update(network_files(host.system, host.address + "/24", self.gateway, nameservers()))
        return files

    # Running it

    def pid(self, host: Host, *states: str) -> int:
        """The first process of a host in one of these states, 0 where there is none. podman's word is not enough: it has missed what was killed with it."""
        state = podman("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", self.container(host), check=False).split()
        return int(state[1]) if len(state) == 2 and state[0] in states and links_of(state[1]) else 0

    def prepare(self, host: Host, mirror: Mirror) -> int:
        """The init of a host that waits for being started. What a reboot has left of the last one is cleared away by a second try; a kill leaves more."""
        container = self.container(host)
        podman("stop", "--time=0", container, check=False)  # if nothing but its links is gone
        for attempt in range(3):
            if attempt == 2:
                say("{0}: podman cannot start it again, as after a kill; it is made anew".format(host.name))
                remove_container(container)
                self.make_host(host, mirror)
            podman("init", container, check=attempt == 2)
            pid = self.pid(host, "created", "initialized")
            if pid:
                return pid
            podman("container", "cleanup", container, check=False)
        raise LabError("{0}: podman has made it, and its first process is not there".format(host.name))

    def start(self, host: Host, mirror: Mirror) -> bool:
        """Start a host that does not run; says whether it did. Its links are there before its init, as network cards are."""
        if "eth0" in links_of(str(self.pid(host, "running"))):
            return False
        pid = self.prepare(host, mirror)
        for link, switch in (("eth0", "mgmt"), ("eth1", "vm")):
            port = "{0}-{1}".format(switch, host.name)
            run(["ip", "-n", self.netns, "link", "delete", port], check=False)  # of its last life, usually gone with it
            run(["ip", "-n", self.netns, "link", "add", port, "type", "veth", "peer", "name", link, "address", mac(self.name, host.name, link),
                 "netns", str(pid)])
            run(["ip", "-n", self.netns, "link", "set", port, "master", switch, "up"])
        podman("start", self.container(host))
        return True

    def wait(self, hosts: Sequence[Host]) -> None:
        """Until systemd has started everything and sshd lets us in."""
        deadline = time.monotonic() + PATIENCE_S
        for host in hosts:
            last = "starting"
            while last != "running":
                last = podman("exec", self.container(host), "systemctl", "is-system-running", check=False) or "not answering"
                if last == "degraded":
                    failed = podman("exec", self.container(host), "systemctl", "--failed", "--no-legend", "--plain", check=False)
                    raise LabError("{0}: units failed at its start: {1}. Look at them with: podman exec {2} journalctl -b".format(
                        host.name, "; ".join(line.split()[0] for line in failed.splitlines()), self.container(host)))
                pause(deadline, "{0}: systemd is not up after {1:.0f} s, but {2}".format(host.name, PATIENCE_S, last), last != "running")
            said = "nothing tried"
            while said:
                done = run(["ssh", "-F", str(self.folder / ".ssh" / "config"), "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", host.name, "true"], check=False)
                said = "" if done.returncode == 0 else done.stderr.strip() or "exit code {0}".format(done.returncode)
                pause(deadline, "{0}: no SSH to {1} after {2:.0f} s: {3}".format(host.name, host.address, PATIENCE_S, said), bool(said))

    def write_folder(self) -> None:
        """What people and Ansible need to get in."""
        ssh = self.folder / ".ssh"
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "hosts.yml", inventory(self.name, self.hosts, ssh))  # first: it tells whose folder this is
        ssh.mkdir(exist_ok=True)
        ssh.chmod(0o700)
        write(ssh / "id_ed25519", (self.state / "id_ed25519").read_text(encoding="utf-8"), 0o600)
        write(ssh / "id_ed25519.pub", (self.state / "id_ed25519.pub").read_text(encoding="utf-8"))
        known, config = "", ""
        for host in self.hosts:
            key = " ".join((self.state / "host_{0}.pub".format(host.name)).read_text(encoding="utf-8").split()[:2])
            known += "{0},{1} {2}\n".format(host.name, host.address, key)
            config += "Host {0} {1}\n    HostName {1}\n".format(host.name, host.address)
        config += "Host *\n    User root\n    IdentityFile {0}\n    IdentitiesOnly yes\n    UserKnownHostsFile {1}\n    StrictHostKeyChecking yes\n".format(
            ssh / "id_ed25519", ssh / "known_hosts")
        write(ssh / "known_hosts", known)
        write(ssh / "config", config)
        catalogs = self.folder / "group_vars" / "all.yml"
        if not catalogs.exists():  # people may have written theirs
            write(catalogs, (ROOT / "inventories" / "group_vars" / "all.yml").read_text(encoding="utf-8"))
        if "SUDO_UID" in os.environ:
            for path in [self.folder] + list(self.folder.rglob("*")):
                os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))

    def check_way_out(self, mirror: Mirror) -> None:
        """Tell of a machine whose firewall lets nothing through; a lab without packages is of use still."""
        proxies = [value for key, value in mirror.options if key.endswith("http::Proxy") and value.startswith("http")]
        url = urllib.parse.urlsplit(proxies[0] if proxies else mirror.debian)
        target = self.gateway if url.hostname in ("localhost", "127.0.0.1") else str(url.hostname)
        script = "import socket; socket.create_connection(({0!r}, {1}), timeout=10).close()".format(target, url.port or (443 if url.scheme == "https" else 80))
        done = run(["ssh", "-F", str(self.folder / ".ssh" / "config"), self.hosts[0].name, shlex.join(["python3", "-c", script])], check=False)
        if done.returncode:
            say("Mind: the hosts do not reach {0} ({1}), so they cannot install packages. Does a firewall on this machine drop what is forwarded "
                "from {2}?".format(target, done.stderr.strip().splitlines()[-1:] or "no answer", self.uplink))

    # Taking it away

    def down(self) -> None:
        """Remove all of it, whatever there is."""
        for container in podman("ps", "--all", "--quiet", "--filter", "label={0}={1}".format(LABEL, self.name)).split():
            remove_container(container)
        if self.uplink in links():  # before its other end, which would take it along at a moment of its own
            run(["ip", "link", "delete", self.uplink])
        if self.netns in namespaces():
            run(["ip", "netns", "delete", self.netns])
        run(["nft", "-f", "-"], text="table ip {0} {{ }}\ndelete table ip {0}\n".format(self.table))
        for folder in {Path(f) for f in self.folders} | {self.folder}:
            clear_folder(folder)
        if self.state.exists():
            shutil.rmtree(self.state)
        with lock("forward"):
            if FORWARD_BEFORE.exists() and not list(STATE.glob("*/lab.json")):
                switch = CONF / FORWARD_BEFORE.read_text(encoding="ascii").strip() / "forwarding"
                # libvirt and podman switch it on for all links; then it is theirs
                if switch.exists() and (CONF / "all" / "forwarding").read_text(encoding="ascii").strip() == "0":
                    switch.write_text("0", encoding="ascii")
                FORWARD_BEFORE.unlink()


def say(text: str) -> None:
    """To people, not to those who read the output."""
    print(text, file=sys.stderr, flush=True)


def pause(deadline: float, message: str, wanted: bool) -> None:
    """Before the next look, if one is wanted; LabError where it is too late for it."""
    if wanted:
        if time.monotonic() > deadline:
            raise LabError(message)
        time.sleep(0.3)


def programs() -> Iterator[str]:
    """What runs on this machine."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield path.read_text(encoding="utf-8").strip()


def limits() -> List[str]:
    """podman would ask for more files and processes than some machines let even root have."""
    found = []
    for name, number, enough in (("nofile", resource.RLIMIT_NOFILE, 65536), ("nproc", resource.RLIMIT_NPROC, 32768)):
        hard = resource.getrlimit(number)[1]
        found.append("--ulimit={0}={1}:{1}".format(name, enough if hard == resource.RLIM_INFINITY else min(enough, hard)))
    return found


def remove_container(name: str) -> None:
    """Remove a container with its disk. podman may need a second call for one that was killed behind its back."""
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", name, check=False)
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", name)


def of_a_lab(folder: Path) -> bool:
    """Whether write_folder has written to it."""
    with contextlib.suppress(OSError):
        return (folder / "hosts.yml").read_text(encoding="utf-8").startswith(MARK)
    return False


def clear_folder(folder: Path) -> None:
    """Remove what write_folder wrote. Files that somebody has added stay, and so do catalogs that somebody has changed."""
    if not of_a_lab(folder):
        return
    catalogs = folder / "group_vars" / "all.yml"
    with contextlib.suppress(FileNotFoundError):
        if catalogs.read_bytes() == (ROOT / "inventories" / "group_vars" / "all.yml").read_bytes():
            catalogs.unlink()
    if (folder / ".ssh").is_dir():
        shutil.rmtree(folder / ".ssh")
    (folder / "hosts.yml").unlink()
    for path in (folder / "group_vars", folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def namespaces() -> List[str]:
    """Names of network namespaces that are alive: a file in /run/netns may be left over from before the last boot."""
    found = []
    for name in (line.split()[0] for line in run(["ip", "netns", "list"]).stdout.splitlines() if line.strip()):
        if run(["ip", "-n", name, "link", "show", "lo"], check=False).returncode == 0:
            found.append(name)
        elif name.startswith("kvmfleet-lab-"):
            run(["ip", "netns", "delete", name])
    return found


def links(netns: str = "") -> List[str]:
    """Names of the links of this machine or of a namespace."""
    argv = ["ip"] + (["-n", netns] if netns else []) + ["-j", "link", "show"]
    return [link["ifname"] for link in json.loads(run(argv).stdout or "[]")]


def links_of(pid: str) -> List[str]:
    """Names of the links that a process sees; a dead one sees none, not even one that is still listed."""
    try:
        lines = Path("/proc", pid, "net", "dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return []
    return [line.split(":")[0].strip() for line in lines]


def free_subnet() -> str:
    """A /24 that neither this machine nor another lab uses."""
    routes = [r["dst"] for r in json.loads(run(["ip", "-4", "-j", "route", "show", "table", "all"]).stdout or "[]") if r["dst"] != "default"]
    taken = [ipaddress.ip_network(r, strict=False) for r in routes if re.match(r"[\d.]+(/\d+)?$", r)]
    for path in STATE.glob("*/lab.json"):
        taken.append(ipaddress.ip_network(json.loads(path.read_text(encoding="utf-8"))["subnet"]))
    for subnet in POOL.subnets(new_prefix=24):
        if not any(subnet.overlaps(t) for t in taken):
            return str(subnet)
    raise LabError("No subnet of {0} is free on this machine".format(POOL))


def network_files(system: str, address: str, gateway: str, dns: Sequence[str]) -> Dict[str, Tuple[int, str]]:
    """How eth0 is configured. DNS is in resolv.conf, which belongs to no system here but to NetworkManager, which writes it."""
    if system == "networkd":
        return {"etc/systemd/network/80-eth0.network": (0o644, "[Match]\nName=eth0\n\n[Network]\nAddress={0}\nGateway={1}\n".format(address, gateway))}
    if system == "ifupdown":
        return {"etc/network/interfaces": (0o644, "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\nauto eth0\n"
                                                  "iface eth0 inet static\n    address {0}\n    gateway {1}\n".format(address, gateway))}
    if system == "netplan":
        return {"etc/netplan/50-lab.yaml": (0o600, "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    eth0:\n      addresses: [{0}]\n"
                                                   "      routes:\n        - to: default\n          via: {1}\n".format(address, gateway))}
    return {"etc/NetworkManager/system-connections/eth0.nmconnection": (
        0o600, "[connection]\nid=eth0\ntype=ethernet\ninterface-name=eth0\n\n[ipv4]\nmethod=manual\naddress1={0},{1}\ndns={2}\n\n"
               "[ipv6]\nmethod=link-local\n".format(address, gateway, "".join(a + ";" for a in dns)))}


def inventory(name: str, hosts: Sequence[Host], ssh: Path) -> str:
    """The inventory of a lab: JSON is YAML too, but people read this."""
    lines = ["{0} '{1}', written by scripts/lab.sh up".format(MARK, name), "---", "kvm_hosts:", "  hosts:"]
    for host in hosts:
        lines += ["    {0}:".format(host.name), "      ansible_host: {0}".format(host.address), "      kvm_zone: {0}".format(host.name),
                  "      # free for the host's link for VM traffic, eth1", "      lab_vm_address: {0}".format(host.vm_address)]
    lines += ["  vars:", "    ansible_user: root", "    ansible_ssh_private_key_file: {0}".format(ssh / "id_ed25519"),
              "    ansible_ssh_common_args: {0}".format(json.dumps("-o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={0}".format(
                  shlex.quote(str(ssh / "known_hosts"))))),
              "    ansible_python_interpreter: /usr/bin/python3",
              "    # /dev/kvm may be there and still not run a guest", "    kvm_virt_type: qemu"]
    return "\n".join(lines) + "\n"


def up(lab: Lab, wanted: Sequence[Tuple[str, str]]) -> None:
    """See lab.sh."""
    began = time.monotonic()
    mirror = mirror_of_this_machine()
    for suite, system in dict.fromkeys(wanted):
        make_image(suite, system, mirror)
    with lock("network"):
        lab.settle(wanted)
        lab.make_network()
    lab.make_keys()
    lab.write_folder()
    for host in lab.hosts:
        lab.make_host(host, mirror)
    started = [lab.start(host, mirror) for host in lab.hosts]
    lab.wait(lab.hosts)
    if any(started):
        lab.check_way_out(mirror)
    say("The lab '{0}' is up after {1:.0f} s: {2}".format(lab.name, time.monotonic() - began, ", ".join(
        "{0} {1} (Debian {2}, {3})".format(h.name, h.address, h.suite, h.system) for h in lab.hosts)))
    print(lab.folder)


def status(lab: Lab) -> int:
    """See lab.sh."""
    bad = 0
    for host in lab.hosts:
        state = "stopped"
        if lab.pid(host, "running"):
            done = run(["ssh", "-F", str(lab.folder / ".ssh" / "config"), "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", host.name, "true"], check=False)
            state = "up" if done.returncode == 0 else "no SSH: {0}".format(done.stderr.strip())
        bad += state != "up"
        print("{0:<8} {1:<16} {2:<10} {3:<15} {4}".format(host.name, host.address, host.suite, host.system, state))
    if not lab.hosts:
        print("There is no lab '{0}'".format(lab.name))
    return int(bool(bad or not lab.hosts))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="lab.sh", description="Several real hosts on this machine, as containers")
    parser.add_argument("verb", choices=("up", "down", "status", "start", "stop"))
    parser.add_argument("hosts_named", metavar="HOST", nargs="*", help="for start and stop")
    parser.add_argument("--name", default=default_name(), help="of the lab; the default is that of `make lab`: $KVMFLEET_LAB, else lab")
    parser.add_argument("--hosts", type=int, default=3, help="how many")
    parser.add_argument("--suites", default="bookworm,trixie", help="Debian releases: the last ones for the last hosts, the first one for all before")
    parser.add_argument("--network-system", default="networkd", help="what configures eth0 on the hosts, in turn: " + ", ".join(SYSTEMS))
    parser.add_argument("--images", action="store_true", help="down: also remove the images that no lab uses")
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), help="where inventory and keys go; default: lab, or .ansible/labs/NAME")
    arguments = parser.parse_args()
    systems, suites = arguments.network_system.split(","), arguments.suites.split(",")
    for system in systems:
        if system not in SYSTEMS:
            parser.error("--network-system {0}: there are {1}".format(system, ", ".join(SYSTEMS)))
    if not 1 <= arguments.hosts <= 50 or len(suites) > arguments.hosts and arguments.suites != parser.get_default("suites"):
        parser.error("--hosts {0}: 1 to 50, and not fewer than there are suites".format(arguments.hosts))
    if bool(arguments.hosts_named) != (arguments.verb in ("start", "stop")):
        parser.error("hosts are named for start and stop, and only there")
    try:
        check_machine()
        forget_the_last_boot()
        with lock("of-" + arguments.name):
            lab = Lab(arguments.name, arguments.folder)
            if arguments.verb == "up":
                up(lab, in_turn(arguments.hosts, suites, systems))
            elif arguments.verb == "down":
                lab.down()
                if arguments.images:
                    remove_images()
            elif arguments.verb == "status":
                return status(lab)
            else:
                chosen = [lab.host(name) for name in arguments.hosts_named]
                for host in chosen:
                    if arguments.verb == "stop":
                        podman("stop", "--time=20", lab.container(host))
                    else:
                        lab.start(host, mirror_of_this_machine())
                if arguments.verb == "start":
                    lab.wait(chosen)
    except LabError as exc:
        print("kvmfleet: {0}".format(exc), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
