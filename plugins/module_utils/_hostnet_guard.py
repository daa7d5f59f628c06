# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a change of a host's links and takes it back unless it is confirmed in time.

A copy of this file is what runs on the host, as a unit of systemd: it needs neither Ansible, nor the control node, nor a network, and nothing but the standard
library. C(_hostnet_change) writes down what is to be done (C(change.json)) and how it was before; this file does it.

The phases of a change: C(armed), C(applying), C(applied), then C(confirmed), or C(undoing) and C(undone). A guard that dies is started again by systemd and
goes on from the phase it finds; after a restart of the host C(boot) takes an unconfirmed change back before the network comes up.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

FOLDER = "/var/lib/kvmfleet/network"
SWITCHES = "/etc/openvswitch/conf.db"
BOOT_UNIT = "kvmfleet-network-undo.service"
BOOT_UNIT_PATH = "/etc/systemd/system/" + BOOT_UNIT
BOOT_UNIT_LINK = "/etc/systemd/system/sysinit.target.wants/" + BOOT_UNIT
FINAL = ("confirmed", "undone")
COMMAND_TIMEOUT_S = 60.0
# How long the system may take to restore runtime addresses and masters by itself, and how long it is tried after that.
PATIENCE_S, REPAIR_S = 6.0, 40.0
_POLL_S = 0.25

Runner = Callable[[Sequence[str], float], Tuple[int, str]]


class Failed(Exception):
    """A step of the change that failed, in words for whoever wanted it."""


def clock() -> float:
    """Seconds since the host was started, suspended or not; nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which start of the host this is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def run(argv: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> Tuple[int, str]:
    """Exit status and output of a command; 127 where there is no such command, 124 where it took too long."""
    # Daemons that a command leaves behind (dhclient) would hold a pipe open for ever, so it writes to a file; in memory, for the disk may be full.
    with open(os.memfd_create("kvmfleet"), "w+b") as output:
        try:
            done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
                                  env=dict(os.environ, LC_ALL="C", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
            code = done.returncode
        except FileNotFoundError:
            return 127, "{0}: there is no such command".format(argv[0])
        except subprocess.TimeoutExpired:
            code = 124
        output.seek(0)
        text = output.read().decode("utf-8", "replace").strip()
    return code, text + ("\nended after {0:g} s".format(timeout_s) if code == 124 else "")


@contextlib.contextmanager
def locked(folder: str, name: str = "lock", wait: bool = True) -> Iterator[bool]:
    """A lock that ends with the process; yields whether it was had. It writes nothing where its file is there."""
    with open(os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CREAT, 0o600), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as exc:
            if exc.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            yield False
            return
        yield True


def alive(folder: str = FOLDER) -> bool:
    """Whether a guard is at work: it holds its lock as long as it lives."""
    if not os.path.isdir(folder):
        return False
    with locked(folder, "guard", wait=False) as free:
        return not free


def write_file(path: str, data: bytes, mode: int, owner: Optional[Tuple[int, int]] = None, mtime_ns: int = 0) -> None:
    """Replace a file at once: a reader, and a host that loses power, has the old one or the new one."""
    temporary = "{0}/.{1}.kvmfleet".format(os.path.dirname(path), os.path.basename(path))
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.flush()
        os.fsync(file.fileno())
    if mtime_ns:
        os.utime(temporary, ns=(mtime_ns, mtime_ns))
    os.rename(temporary, path)


def read_json(folder: str, name: str) -> Dict[str, Any]:
    """What a file in the folder holds; empty where there is none."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            data: Dict[str, Any] = json.load(file)
            return data
    except FileNotFoundError:
        return {}


def write_json(folder: str, name: str, data: Mapping[str, Any]) -> None:
    """Replace a file in the folder at once."""
    write_file(os.path.join(folder, name), json.dumps(data, indent=1, sort_keys=True).encode(), 0o600)


def links(runner: Runner = run) -> Dict[str, Dict[str, Any]]:
    """The host's links by name, reduced to what is compared and restored. Raises Failed."""
    code, text = runner(["ip", "-j", "-d", "address", "show"], 20.0)
    if code:
        raise Failed("ip address show: {0}".format(text))
    found = parse_links(text)
    for name, link in found.items():
        if link["kind"] == "vxlan":
            code, text = runner(["bridge", "-j", "fdb", "show", "dev", name], 20.0)
            link["data"]["peers"] = parse_peers(text) if code == 0 else []
    return found


def parse_links(text: str) -> Dict[str, Dict[str, Any]]:
    """The same out of the output of C(ip -j -d address show)."""
    result = {}
    for item in json.loads(text or "[]"):
        if not item.get("ifname"):
            continue        # iproute2 prints empty entries for what its filters left out
        info = item.get("linkinfo") or {}
        addresses = {}
        for entry in item.get("addr_info") or []:
            if entry.get("local") and entry.get("scope") != "link":
                addresses["{0}/{1}".format(entry["local"], entry["prefixlen"])] = {
                    "dynamic": bool(entry.get("dynamic")), "valid": entry.get("valid_life_time", 0), "preferred": entry.get("preferred_life_time", 0)}
        result[item["ifname"]] = {
            "kind": "loopback" if item.get("link_type") == "loopback" else info.get("info_kind") or "physical", "data": info.get("info_data") or {},
            "parent": item.get("link", ""),
            "mac": item.get("address", ""), "mtu": item.get("mtu", 0), "master": item.get("master", ""), "up": "UP" in (item.get("flags") or []),
            "addresses": addresses}
    return result


def parse_peers(text: str) -> List[str]:
    """Where a VXLAN sends frames whose receiver it does not know, out of the output of C(bridge -j fdb show)."""
    return sorted(item["dst"] for item in json.loads(text or "[]") if item.get("dst") and item.get("mac") == "00:00:00:00:00:00")


def routes(runner: Runner = run) -> Dict[str, List[str]]:
    """The routes that somebody set, by family, as arguments for C(ip route replace). Raises Failed."""
    result = {}
    for family in ("-4", "-6"):
        code, text = runner(["ip", family, "route", "show", "table", "main"], 20.0)
        if code:
            raise Failed("ip route show: {0}".format(text))
        result[family] = parse_routes(text)
    return result


def parse_routes(text: str) -> List[str]:
    """Lines of C(ip route show), less those that come with an address or from a router, and less what is a state and no setting."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words or line[0].isspace() or "kernel" in words or "ra" in words or words[0] in ("unreachable", "blackhole", "prohibit"):
            continue
        if "expires" in words:
            del words[words.index("expires"):words.index("expires") + 2]
        found.append(" ".join(word for word in words if word not in ("linkdown", "dead")))
    return found


def unmet(expected: Sequence[Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]], ways: Optional[Mapping[str, Sequence[str]]] = None) -> List[str]:
    """What of the expected devices is not so, in words. C(ways) are the routes by family; without them routes are not looked at."""
    wrong = []
    there = {_way(line) for lines in (ways or {}).values() for line in lines}
    for item in expected:
        name, link = item["name"], present.get(item["name"])
        if link is None:
            wrong.append("{0} is not there".format(name))
            continue
        if item.get("kind") and item["kind"] != link["kind"]:
            wrong.append("{0} is of kind {1}, not {2}".format(name, link["kind"], item["kind"]))
        if link["master"] and link["master"] in item.get("no_master", ()):
            wrong.append("{0} is still in {1}".format(name, link["master"]))
        if "no_master" in item:
            continue
        if "master" in item and item["master"] != link["master"]:
            wrong.append("{0} is in {1}, not in {2}".format(name, link["master"] or "no bridge", item["master"] or "none"))
        if not link["up"]:
            wrong.append("{0} is not up".format(name))
        if item.get("mtu") and item["mtu"] != link["mtu"]:
            wrong.append("{0} has MTU {1}, not {2}".format(name, link["mtu"], item["mtu"]))
        wrong += ["{0} does not have {1}".format(name, address) for address in item.get("addresses", ()) if address not in link["addresses"]]
        if ways is not None:
            wrong += ["{0} does not have the route {1}".format(name, route) for route in item.get("routes", ())
                      if _way("{0} dev {1}".format(route, name)) not in there]
        if item.get("exact"):
            wrong += ["{0} has {1}, which is not declared".format(name, address) for address, state in link["addresses"].items()
                      if address not in item.get("addresses", ()) and not state["dynamic"]]
        for key, value in item.get("data", {}).items():
            if link["data"].get(key) != value:
                wrong.append("{0} has {1} {2}, not {3}".format(name, key, link["data"].get(key), value))
    return wrong


def corrections(before: Mapping[str, Any], present: Mapping[str, Mapping[str, Any]], now: Mapping[str, Sequence[str]],
                made: Sequence[str] = ()) -> List[List[str]]:
    """The commands that make links and routes again what they were; none where they are. Nothing is done to links that C(before) does not have.

    C(made) are links that the change made: their routes go.
    """
    calls: List[List[str]] = []
    for name, old in before["links"].items():
        link = present.get(name)
        if link is None:
            if old["kind"] == "bridge":
                calls.append(["ip", "link", "add", "name", name, "type", "bridge"])
            continue
        if old["mac"] and link["mac"] != old["mac"] and old["kind"] in ("physical", "veth", "bridge"):
            calls.append(["ip", "link", "set", "dev", name, "address", old["mac"]])
        # Open vSwitch takes its ports back by itself
        if link["master"] != old["master"] and "ovs-system" not in (link["master"], old["master"]):
            calls.append(["ip", "link", "set", "dev", name] + (["master", old["master"]] if old["master"] else ["nomaster"]))
        if old["mtu"] and link["mtu"] != old["mtu"]:
            calls.append(["ip", "link", "set", "dev", name, "mtu", str(old["mtu"])])
        # A bridge or a switch's port is up as its system has it; a link that nobody had brought up is on no network
        if old["up"] != link["up"] and (old["up"] or old["kind"] in ("physical", "veth")):
            calls.append(["ip", "link", "set", "dev", name, "up" if old["up"] else "down"])
        for address, state in old["addresses"].items():
            if address not in link["addresses"]:
                call = ["ip", "address", "replace", address, "dev", name]
                calls.append(call + (["valid_lft", str(state["valid"]), "preferred_lft", str(state["preferred"])] if state["dynamic"] else []))
        calls += [["ip", "address", "del", address, "dev", name] for address, state in link["addresses"].items()
                  if address not in old["addresses"] and not state["dynamic"]]
    for family, lines in before["routes"].items():
        wanted, there = {_way(line) for line in lines}, {_way(line) for line in now.get(family, ())}
        calls += [["ip", family, "route", "del"] + line.split() for line in now.get(family, ())
                  if _way(line) not in wanted and _was_set(line) and (device_of(line) in before["links"] or device_of(line) in made)]
        calls += [["ip", family, "route", "replace"] + line.split() for line in lines if _way(line) not in there]
    return calls


def _way(line: str) -> Tuple[str, ...]:
    """What makes a route the same: where to, by which router and device. Metrics change whenever a system sets it again."""
    words = line.split()
    return tuple(words[:1] + [word for key in ("via", "dev") if key in words for word in words[words.index(key):words.index(key) + 2]])


def device_of(line: str) -> str:
    """The device of a line of C(ip route show); empty where it has several."""
    words = line.split()
    return words[words.index("dev") + 1] if "dev" in words else ""


def protocol_of(line: str) -> str:
    """Who set a route; empty where nobody says so, as with C(ip route add)."""
    words = line.split()
    return words[words.index("proto") + 1] if "proto" in words else ""


def _was_set(line: str) -> bool:
    """Whether a configuration system set this route: a way out, or one by a router. Routes of routing daemons are theirs."""
    return line.startswith("default ") or (" via " in line and protocol_of(line) in ("", "static", "boot"))


def vm_ports(runner: Runner = run) -> List[Dict[str, Any]]:
    """The ports in Open vSwitch that libvirt has made, each with the call that makes it again; none where there is no Open vSwitch."""
    code, text = runner(["ovs-vsctl", "--timeout=10", "--format=json", "--columns=name,external_ids", "list", "Interface"], 15.0)
    if code:
        return []
    found = []
    for name, (_kind, pairs) in json.loads(text)["data"]:
        ids = dict(pairs)
        if "iface-id" not in ids:
            continue
        where, switch = runner(["ovs-vsctl", "--timeout=10", "port-to-br", name], 15.0)
        told, tag = runner(["ovs-vsctl", "--timeout=10", "--bare", "get", "Port", name, "tag"], 15.0)
        if where or told:
            continue        # it has gone in between
        call = ["ovs-vsctl", "--timeout=10", "--", "--may-exist", "add-port", switch, name] + (["tag=" + tag] if tag.isdigit() else [])
        call += ["--", "set", "Interface", name] + ["external_ids:{0}={1}".format(key, json.dumps(value)) for key, value in sorted(ids.items())]
        found.append({"port": name, "switch": switch, "call": call})
    return found


class Guard:
    """One change, from the folder in which it is written down."""

    def __init__(self, folder: str = FOLDER, runner: Runner = run) -> None:
        self.folder, self.runner = folder, runner
        self.going_back = False
        self.lost: List[str] = []       # files that could not be put back
        self.change = read_json(folder, "change.json")

    # --- phases

    def state(self) -> Dict[str, Any]:
        """Where the change is."""
        return read_json(self.folder, "state.json")

    def enter(self, phase: str, **data: Any) -> None:
        """Write down that the change is in another phase."""
        write_json(self.folder, "state.json", self._in(phase, data))

    def _in(self, phase: str, data: Mapping[str, Any]) -> Dict[str, Any]:
        return dict(self.state(), phase=phase, boot=boot_id(), at=clock(), **data)

    def note(self, phase: str, **data: Any) -> None:
        """The same on the way back, which goes on where nothing can be written down. On a full disk the old file's own space still can be written to."""
        try:
            self.enter(phase, **data)
        except OSError:
            with contextlib.suppress(OSError), open(os.path.join(self.folder, "state.json"), "r+b", buffering=0) as file:
                text = json.dumps(self._in(phase, data)).encode()
                file.write(text + b" " * (os.fstat(file.fileno()).st_size - len(text)))

    def log(self, text: str) -> None:
        """Add a line to what is shown when something went wrong. A full disk is no reason not to do what the line is about."""
        with contextlib.suppress(OSError), open(os.path.join(self.folder, "log"), "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def release(self) -> None:
        """Give the space free that was kept for the way back."""
        for path in self.change.get("reserves", ()):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def watch(self) -> None:
        """Carry the change out, wait for the confirmation, and take it back where none comes."""
        with locked(self.folder, "guard", wait=False) as mine:
            phase = self.state().get("phase")
            if not mine or phase in FINAL:
                return
            if phase == "armed":
                self.enter("applying", deadline=clock() + self.change["delay"] + self.change["deadline"])
                time.sleep(self.change["delay"])
                try:
                    self.apply()
                    self.enter("applied")
                except (Failed, OSError) as exc:
                    self.undo("it failed on the host: {0}".format(exc))
                    return
            elif phase != "applied":
                self.undo(self.state().get("reason") or "the guard was ended while the change was being made")
                return
            self.await_confirmation()

    def await_confirmation(self) -> None:
        """Wait until somebody confirms, or it is too late."""
        deadline = float(self.state()["deadline"])
        while True:
            with locked(self.folder):
                if self.state()["phase"] == "confirmed":
                    return
                if clock() >= deadline:
                    # Who confirms waits for the lock: where nothing can be written, the state does not say that it is too late.
                    self.undo("no new connection from the control node came in within {0:g} s".format(self.change["deadline"]))
                    return
            self.attach()
            time.sleep(_POLL_S)

    def boot(self) -> None:
        """After a restart of the host, before the network comes up: the files as they were. The links are fresh."""
        if self.state().get("phase", "confirmed") not in FINAL:
            self.going_back = True
            self.release()
            self.note("undoing", reason="the host was restarted before the change was confirmed")
            self.step({"files": "old"}, strict=False)
            self.step({"database": "old"}, strict=False)
            for step in self.change["boot"]:
                self.step(step, strict=False)
            self.note("undone")
        disarm_boot()

    def restore_database(self) -> None:
        """Open vSwitch's database as it was, before anybody serves it."""
        path = os.path.realpath(SWITCHES)
        if self.change["switches"] and os.path.exists(path):
            status = os.stat(path)
            with open(os.path.join(self.folder, self.change["switches"]), "rb") as file:
                write_file(path, file.read(), status.st_mode & 0o7777, (status.st_uid, status.st_gid))

    # --- there

    def apply(self) -> None:
        """Do what is written down, and wait until the links are as expected. Raises Failed."""
        for step in self.change["apply"]:
            self.step(step, strict=True)
        deadline = clock() + float(self.change["settle"])
        while True:
            self.attach()
            missing = unmet(self.change["expect"], links(self.runner), routes(self.runner))
            if not missing:
                return
            if clock() >= min(deadline, float(self.state()["deadline"])):
                raise Failed("; ".join(missing))
            time.sleep(_POLL_S)

    def step(self, step: Mapping[str, Any], strict: bool) -> None:
        """One step; where it fails, Raises Failed if C(strict), else logs it."""
        try:
            self._step(step)
        except (Failed, OSError) as exc:
            if strict:
                raise
            self.log("{0}".format(exc))

    def _step(self, step: Mapping[str, Any]) -> None:
        if step.get("if_link") and not os.path.isdir("/sys/class/net/{0}".format(step["if_link"])):
            return
        if "run" in step:
            left = COMMAND_TIMEOUT_S if self.going_back else float(self.state().get("deadline", 0)) - clock()
            code, text = self.runner(step["run"], max(1.0, min(COMMAND_TIMEOUT_S, left)))
            self.log("$ {0} -> {1}\n{2}".format(" ".join(step["run"]), code, text).rstrip())
            if code not in step.get("ok", [0]):
                raise Failed("{0} ended with {1}: {2}".format(" ".join(step["run"]), code, text))
        elif "release" in step:
            link = links(self.runner).get(step["release"])
            if link is not None and link["master"] in step["from"]:
                self._step({"run": ["ip", "link", "set", "dev", step["release"], "nomaster"]})
        elif "sysctl" in step:
            for path, value in step["sysctl"].items():
                with open(path, "w", encoding="ascii") as file:
                    file.write(value + "\n")
        elif "database" in step:
            self.restore_database()
        elif step["files"] == "new":
            self.write()
        else:
            self.restore()

    def write(self) -> None:
        """The files as the change wants them."""
        for entry in self.change["files"]:
            path, after = entry["path"], entry["after"]
            if after is None:
                if os.path.lexists(path):
                    os.unlink(path)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._put(path, after)
        os.sync()

    def restore(self) -> None:
        """The files as they were, byte by byte. One that cannot be put back keeps none of the others from it. Raises Failed."""
        self.lost = []
        for entry in self.change["files"]:
            path, before = entry["path"], entry["before"]
            try:
                if before is None:
                    if os.path.lexists(path):
                        os.unlink(path)
                else:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    self._put(path, before)
            except OSError as exc:
                self.lost.append("{0}: {1}".format(path, exc.strerror))
        for folder in sorted(self.change["made_folders"], key=len, reverse=True):
            if os.path.isdir(folder) and not os.listdir(folder):
                os.rmdir(folder)
        os.sync()
        if self.lost:
            raise Failed("not put back: " + "; ".join(self.lost))

    def _put(self, path: str, wanted: Mapping[str, Any]) -> None:
        if "link" in wanted:
            if not os.path.islink(path) or os.readlink(path) != wanted["link"]:
                if os.path.lexists(path):
                    os.unlink(path)
                os.symlink(wanted["link"], path)
            return
        with open(os.path.join(self.folder, wanted["copy"]), "rb") as file:
            write_file(path, file.read(), wanted["mode"], (wanted.get("uid", 0), wanted.get("gid", 0)), wanted.get("mtime_ns", 0))

    def attach(self) -> None:
        """Put the VMs' interfaces back into their bridges, where a configuration system took them out."""
        present = links(self.runner) if self.change["ports"] else {}
        for port, bridge in self.change["ports"]:
            if port in present and bridge in present and present[port]["master"] != bridge:
                code, text = self.runner(["ip", "link", "set", "dev", port, "master", bridge], 20.0)
                self.log("put {0} back into {1} -> {2} {3}".format(port, bridge, code, text).rstrip())
        self._attach_switched(self.change["vm_ports"])

    def _attach_switched(self, ports: Sequence[Mapping[str, Any]]) -> None:
        for port in ports:
            if os.path.isdir("/sys/class/net/{0}".format(port["port"])) and self.runner(["ovs-vsctl", "--timeout=10", "port-to-br", port["port"]], 15.0)[0]:
                code, text = self.runner(port["call"], 15.0)
                self.log("put {0} back into {1} -> {2} {3}".format(port["port"], port["switch"], code, text).rstrip())

    # --- and back

    def undo(self, reason: str) -> None:
        """Files and links as they were before the change."""
        self.going_back = True
        self.release()
        self.note("undoing", reason=reason)
        self.log("taking the change back: {0}".format(reason))
        for step in self.change["undo"]:
            self.step(step, strict=False)
        if self.change["switches"]:
            self.restore_switches()
        self.remove_made()
        for step in self.change["reload"]:
            self.step(step, strict=False)
        left = self.lost + self.repair()
        self.attach()
        self.note("undone", left=left)
        disarm_boot()

    def remove_made(self) -> None:
        """Links that were not there before and that the change made."""
        for name in self.change["made"]:
            if os.path.isdir("/sys/class/net/{0}".format(name)):
                self.step({"run": ["ip", "link", "del", "dev", name]}, strict=False)

    def restore_switches(self) -> None:
        """The database of Open vSwitch as it was, and in it the VMs' ports that have come since."""
        since = vm_ports(self.runner)
        database = os.path.join(self.folder, self.change["switches"])
        self.step({"run": ["sh", "-c", 'exec ovsdb-client --timeout=20 restore --force < "$0"', database]}, strict=False)
        self._attach_switched(since)

    def repair(self) -> List[str]:
        """Wait until links and routes are what they were, after a while by setting them; what is left then, in words."""
        start = clock()
        while True:
            try:
                calls = corrections(self.change["before"], links(self.runner), routes(self.runner), self.change["made"])
            except Failed as exc:
                calls = [["false"]]
                self.log(str(exc))
            if not calls or clock() >= start + REPAIR_S:
                return [" ".join(call) for call in calls]
            if clock() >= start + PATIENCE_S:
                for call in calls:
                    self.step({"run": call}, strict=False)
                time.sleep(1.0)
            time.sleep(_POLL_S)


def disarm_boot() -> None:
    """Take away the unit that would take the change back at the next start of the host."""
    for path in (BOOT_UNIT_LINK, BOOT_UNIT_PATH):
        if os.path.lexists(path):
            os.unlink(path)


def main(argv: Sequence[str]) -> int:
    """Entry point of the copy on the host: C(watch), C(boot) or C(undo)."""
    guard = Guard(os.path.dirname(os.path.abspath(argv[0])))
    if argv[1] == "undo":
        with locked(guard.folder, "guard", wait=False) as mine:
            if mine and guard.state().get("phase") not in FINAL:
                guard.undo(argv[2])
            return 0 if mine else 1
    {"watch": guard.watch, "boot": guard.boot}[argv[1]]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
