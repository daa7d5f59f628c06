# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons under systemd: the one libvirtd or the modular ones, enabled, reachable, and started with the configuration that is there now."""
from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import read_text, replace
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

KINDS = ("monolithic", "modular")
STAMP = "/run/kvmfleet/daemons.json"
CONFIGURATION = ("/etc/libvirt/*.conf", "/etc/default/libvirtd", "/etc/sysconfig/libvirtd")
# These are for clients, or for daemons that are not to be restarted under VMs
_OF_OTHERS = ("libvirt.conf", "libvirt-admin.conf", "virtlogd.conf", "virtlockd.conf")
# They count only where TLS is on
TLS_FILES = ("/etc/pki/CA/cacert.pem", "/etc/pki/libvirt/servercert.pem", "/etc/pki/libvirt/private/serverkey.pem")
_DRIVERS = ("qemu", "network", "storage", "nodedev", "secret", "nwfilter", "interface")
_TLS_ATTEMPTS = 10

Run = Callable[[List[str]], Tuple[int, str, str]]


@dataclass
class Unit:
    """What systemd says of a unit."""

    name: str
    there: bool = False
    active: bool = False
    file_state: str = ""
    pid: int = 0

    @property
    def enabled(self) -> bool:
        """Whether it is started at boot, or has no say in that."""
        return self.file_state not in ("disabled", "masked", "masked-runtime")


def parse_units(text: str) -> Dict[str, Unit]:
    """The units in the output of C(systemctl show)."""
    units = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            units[values["Id"]] = Unit(values["Id"], values.get("LoadState") not in ("not-found", "", None), values.get("ActiveState") in (
                "active", "activating", "reloading"), values.get("UnitFileState", ""), int(values.get("MainPID") or 0))
    return units


def services_of(kind: str) -> List[str]:
    """The services of the one or of the other kind, by name without suffix; the first is the one that VMs depend on."""
    return ["libvirtd"] if kind == "monolithic" else ["virt{0}d".format(driver) for driver in _DRIVERS]


def sockets_of(service: str) -> List[str]:
    """The local sockets of a service."""
    return ["{0}{1}.socket".format(service, suffix) for suffix in ("", "-ro", "-admin")]


def tls_socket(kind: str) -> str:
    """The socket that listens for TLS."""
    return "libvirtd-tls.socket" if kind == "monolithic" else "virtproxyd-tls.socket"


def all_units() -> List[str]:
    """Every unit that is looked at."""
    names = [tls_socket(kind) for kind in KINDS] + ["virtproxyd.service"] + sockets_of("virtproxyd")
    for kind in KINDS:
        for service in services_of(kind):
            names += [service + ".service"] + sockets_of(service)
    return names


def kind_of(units: Dict[str, Unit]) -> str:
    """Which kind this system uses: libvirtd where it runs or is started at boot, else the modular ones where they are. Raises FleetError for none."""
    single = [units[name] for name in ("libvirtd.service", "libvirtd.socket") if name in units and units[name].there]
    if any(unit.active or unit.file_state == "enabled" for unit in single):
        return "monolithic"
    if "virtqemud.socket" in units and units["virtqemud.socket"].there:
        return "modular"
    if single:
        return "monolithic"
    raise FleetError("No libvirt daemon is installed: systemd knows neither libvirtd nor virtqemud", "no_libvirt")


def configuration(tls: bool, mounts: str, patterns: Iterable[str] = CONFIGURATION, tls_files: Iterable[str] = TLS_FILES) -> Dict[str, str]:
    """What a daemon reads at its start: a digest for each file, and the huge pages that are mounted."""
    paths = {path for pattern in patterns for path in glob.glob(pattern) if os.path.basename(path) not in _OF_OTHERS}
    paths |= {path for path in tls_files if tls and os.path.exists(path)}
    seen = {}
    for path in sorted(paths):
        with open(path, "rb") as file:
            seen[path] = hashlib.sha256(file.read()).hexdigest()
    seen["hugetlbfs"] = " ".join(sorted(words[1] for words in (line.split() for line in mounts.splitlines()) if len(words) > 2 and words[2] == "hugetlbfs"))
    return seen


def newest(paths: Iterable[str]) -> float:
    """When the youngest of these files came to be what it is, as Unix time; 0 for none."""
    return max((os.stat(path).st_ctime for path in paths if os.path.exists(path)), default=0.0)


def differences(before: Dict[str, str], now: Dict[str, str]) -> List[str]:
    """What has come, gone or changed."""
    return sorted(key for key in set(before) | set(now) if before.get(key, "") != now.get(key, ""))


@dataclass(frozen=True)
class Process:
    """One run of a daemon: C(instance) is never that of another one. C(started) is Unix time."""

    instance: str
    started: float


def process_of(pid: int, proc: str = "/proc") -> Optional[Process]:
    """A running process, or None where it has ended."""
    try:
        with open("{0}/{1}/stat".format(proc, pid), encoding="utf-8", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return Process("{0}:{1}".format(pid, ticks), time.time() - age)


@dataclass
class DaemonConverger:
    """libvirt's daemons on their way to what is wanted. Raises SpecError and FleetError.

    :param run: runs a command; its return code, output and error output
    :param kind: C(monolithic), C(modular), or None for the one that the system uses
    :param tls: whether TLS is on; None leaves that as it is
    """

    run: Run
    kind: Optional[str] = None
    tls: Optional[bool] = None
    stamp: str = STAMP
    units: Dict[str, Unit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.told = self.kind is not None

    def look(self) -> None:
        """Ask systemd for all units."""
        code, out, err = self.run(["systemctl", "show", "--property=Id,LoadState,ActiveState,UnitFileState,MainPID"] + all_units())
        if code:
            raise FleetError("systemd does not answer: {0}".format(" ".join((err or out).split())), "no_systemd")
        self.units = parse_units(out)
        self.kind = self.kind or kind_of(self.units)
        main = services_of(self.kind)[0]
        if not self._unit(main + ".service").there:
            raise SpecError("kind", self.kind, "this system has no {0}.service".format(main), "Leave kind out, or install that daemon", "no_libvirt")

    def converge(self, check: bool) -> Dict[str, Any]:
        """Make them enabled, reachable and up to date; the module's result."""
        self.look()
        before = self._state()
        actions: List[str] = []
        self._refuse()
        for step in (self._end_others, self._enable, self._listen, self._switch_tls, self._restart_owed):
            actions += step(check)
        if not check:
            if actions:
                self.look()
            self._remember()
        after = dict(before, tls=before["tls"] if self.tls is None else self.tls, enabled=True, listening=True, **{"other kind": False})
        return {"changed": bool(actions), "actions": actions, "kind": self.kind, "diff": {"before": before, "after": after}}

    def _unit(self, name: str) -> Unit:
        return self.units.get(name) or Unit(name)

    def _services(self) -> List[str]:
        return [service for service in services_of(str(self.kind)) if self._unit(service + ".service").there]

    def _wanted(self) -> List[str]:
        """Units that are started at boot: the services too, because they start networks, pools and VMs then."""
        return [name for service in self._services() for name in [service + ".service"] + sockets_of(service) if self._unit(name).there]

    def _tls_unit(self) -> Unit:
        return self._unit(tls_socket(str(self.kind)))

    def _state(self) -> Dict[str, Any]:
        return {"kind": self.kind, "tls": self._tls_unit().active, "enabled": all(self._unit(name).enabled for name in self._wanted()),
                "other kind": bool(self._others()), "listening": not self._silent()}

    def _systemctl(self, verb: str, names: Sequence[str]) -> None:
        code, out, err = self.run(["systemctl", verb] + list(names))
        if code:
            said = [line for name in names for line in self._journal(name)]
            raise FleetError("systemctl {0} {1} failed: {2}".format(verb, " ".join(names), said[-1] if said else " ".join((err or out).split())),
                             "daemon_failed")

    def _journal(self, name: str) -> List[str]:
        """What a service itself has said last; systemd's own words only say to look there."""
        _code, out, _err = self.run(["journalctl", "--no-pager", "-o", "cat", "-n", "30", "-u", name, "_COMM=" + name.partition(".")[0]])
        return [line for line in out.splitlines() if line.strip()]

    def _start(self, names: Sequence[str]) -> None:
        """Start units, also those that systemd has given up."""
        self._systemctl("reset-failed", names)
        self._systemctl("start", names)

    def _others(self) -> List[Unit]:
        """Units of the other kind that run or are started at boot. Both kinds want the same sockets, and each ends the other when it starts.

        Where no kind was asked for, what the system has stays as it is.
        """
        if not self.told:
            return []
        other = next(kind for kind in KINDS if kind != self.kind)
        services = services_of(other) + (["virtproxyd"] if other == "modular" else [])
        names = [tls_socket(other)] + [name for service in services for name in sockets_of(service) + [service + ".service"]]
        return [self._unit(name) for name in names if self._unit(name).there and (self._unit(name).active or self._unit(name).file_state == "enabled")]

    def _refuse(self) -> None:
        """What cannot be, before anything is touched: the other kind must not be ended for one that does not start."""
        masked = [name for name in self._wanted() if self._unit(name).file_state.startswith("masked")]
        if masked:
            raise SpecError("kind", self.kind, "{0} is masked: somebody does not want it to run".format(masked[0]), "systemctl unmask {0}".format(
                " ".join(masked)), "daemon_masked")
        if self.tls is None and any(unit.name in map(tls_socket, KINDS) for unit in self._others()):
            self.tls = True     # not asked about, it stays as it is: on
        if self.tls and not self._tls_unit().there:
            raise SpecError("tls", self.tls, "this system has no {0}".format(self._tls_unit().name), "Install libvirt's daemon with TLS, or use SSH",
                            "unsupported")

    def _end_others(self, check: bool) -> List[str]:
        """End the other kind, sockets first, so that nobody starts its services again. Running VMs do not notice, and the new daemons find them."""
        others = self._others()
        running, starting = [unit.name for unit in others if unit.active], [unit.name for unit in others if unit.file_state == "enabled"]
        if not check:
            if running:
                self._systemctl("stop", running)
            if starting:
                self._systemctl("disable", starting)
        return (["stop {0}".format(" ".join(running))] if running else []) + (["disable {0}".format(" ".join(starting))] if starting else [])

    def _enable(self, check: bool) -> List[str]:
        names = [name for name in self._wanted() if not self._unit(name).enabled]
        if names and not check:
            self._systemctl("enable", names)
        return ["enable {0}".format(" ".join(names))] if names else []

    def _silent(self) -> List[str]:
        """Services that nobody can reach. One that ends when it is idle is reached through its socket; one without socket listens itself."""
        return [service for service in self._services() if not self._unit(service + ".service").active and not self._unit(service + ".socket").active]

    def _listen(self, check: bool) -> List[str]:
        silent = self._silent()
        if silent and not check:
            self._start([name for service in silent for name in sockets_of(service) if self._unit(name).there])
            # So that networks and pools that start at boot are there now as well
            self._start([service + ".service" for service in silent])
        return ["start {0}".format(service) for service in silent]

    def _switch_tls(self, check: bool) -> List[str]:
        socket = self._tls_unit()
        if self.tls is None or (socket.active == self.tls and (socket.file_state == "enabled") == self.tls):
            return []
        if not check:
            self._systemctl("enable" if self.tls else "disable", [socket.name])
            if self.tls:
                self._open_tls(socket.name)
            else:
                self._close_tls(socket.name)
            self.look()
        return ["switch TLS {0} ({1})".format("on" if self.tls else "off", socket.name)]

    def _server(self) -> str:
        """The service behind the TLS socket."""
        return "libvirtd.service" if self.kind == "monolithic" else "virtproxyd.service"

    def _open_tls(self, socket: str) -> None:
        """systemd refuses to open a socket of a running service, and whoever connects in between starts it again. Running VMs do not notice.

        A daemon that does not start with TLS (it is particular about certificates) is started without it.
        """
        for attempt in range(_TLS_ATTEMPTS):
            self._systemctl("stop", [self._server()])
            code, out, err = self.run(["systemctl", "start", socket])
            if code == 0:
                break
            if attempt == _TLS_ATTEMPTS - 1:
                raise FleetError("{0} does not start: {1}".format(socket, " ".join((err or out).split())), "daemon_failed")
        try:
            self._start([self._server()])
        except FleetError as exc:
            self._systemctl("disable", [socket])
            # systemd is about to start it again, and meanwhile opens no socket of it
            self._systemctl("stop", [self._server(), socket])
            names = [name for name in sockets_of(self._server().partition(".")[0]) if self._unit(name).there]
            self._start(names + [self._server()])
            raise FleetError("libvirt does not start with TLS, and was started without it again. {0}".format(exc), exc.code) from None

    def _close_tls(self, socket: str) -> None:
        """The running daemon would go on listening on the socket that it was given."""
        self._systemctl("stop", [socket])
        self._systemctl("try-restart", [self._server()])

    def _running(self) -> List[Tuple[str, Process]]:
        found = []
        for service in self._services() + (["virtproxyd"] if self.kind == "modular" else []):
            unit = self._unit(service + ".service")
            process = process_of(unit.pid) if unit.pid else None
            if process is not None:
                found.append((service, process))
        return found

    def _configuration(self) -> Dict[str, str]:
        return configuration(self._tls_unit().active, read_text("/proc/mounts") or "")

    def _noted(self) -> Dict[str, Any]:
        """What each daemon was started with, as noted; nothing where that cannot be read."""
        try:
            noted = json.loads(read_text(self.stamp) or "{}")
        except ValueError:
            return {}
        return noted if isinstance(noted, dict) else {}

    def _restart_owed(self, check: bool) -> List[str]:
        """Restart daemons that have not read what is configured now: an earlier run may have died before it could, or somebody has edited a file."""
        noted, now, owed = self._noted(), self._configuration(), []
        for service, process in self._running():
            note = noted.get(service) or {}
            if note.get("instance") == process.instance:
                changed = differences(note.get("configuration") or {}, now)
            else:  # not started by us: what has changed since it started, it has not read
                changed = sorted(path for path in now if newest([path]) > process.started)
            if changed:
                owed.append((service, changed))
        if owed and not check:
            self._systemctl("restart", [service + ".service" for service, _changed in owed])
        return ["restart {0}, which has not read {1}".format(service, ", ".join(changed)) for service, changed in owed]

    def _remember(self) -> None:
        """Note what each daemon was started with."""
        now = self._configuration()
        noted = {service: {"instance": process.instance, "configuration": now} for service, process in self._running()}
        if noted != self._noted():
            replace(self.stamp, json.dumps(noted, sort_keys=True), 0o600)
