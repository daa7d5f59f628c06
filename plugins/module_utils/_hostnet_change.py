# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a change of a host's links down for the guard, with all that is needed to take it back, and sets the guard to work."""
from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.kvmfleet.core.plugins.module_utils import _hostnet_guard as guard
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_steps import Steps

# The guard begins so long after it was set to work, so that the answer that says so is on its way before a link goes down.
DELAY_S = 1.0
# Kept free for the way back beside what the old files take: state, log, temporary files.
RESERVE = 256 << 10
SETTLE_S = 45.0
START_S = 20.0
_BOOT_UNIT = """\
[Unit]
Description=Take back a change of the network that was not confirmed
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target systemd-networkd.service NetworkManager.service networking.service ovsdb-server.service shutdown.target
Conflicts=shutdown.target
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart={python} {folder}/guard.py boot
"""


@dataclass
class Change:
    """A change that is to be made. C(files) has the new content of each path: mode and text, the target of a link, or None where the file goes."""

    files: Mapping[str, Any]
    steps: Steps
    expect: Sequence[Mapping[str, Any]]
    before: Mapping[str, Any]                       # links and routes to be restored
    made: Sequence[str] = ()                        # links that were not there before
    ports: Sequence[Sequence[str]] = ()             # VMs' interfaces with their bridge
    vm_ports: Sequence[Mapping[str, Any]] = ()      # the same in Open vSwitch
    switches: bool = False                          # whether Open vSwitch is changed, too


def pending(folder: str = guard.FOLDER) -> Dict[str, Any]:
    """The state of a change that is neither confirmed nor undone; empty where there is none."""
    state = guard.read_json(folder, "state.json")
    return state if state and state.get("phase") not in guard.FINAL else {}


def settle_pending(folder: str = guard.FOLDER) -> str:
    """Wait for another run's change, or take back what a dead one has left; in words what was found. Raises FleetError where it does not end."""
    state = pending(folder)
    if not state:
        return ""
    told = "a change of an earlier run was not confirmed"
    while guard.alive(folder):
        state = pending(folder)
        if not state:
            return told + ", and has been waited for"
        left = float(state.get("deadline", guard.clock())) - guard.clock() + guard.REPAIR_S + 60.0
        if left < 0:
            raise FleetError("Another run's change of this host's links is neither confirmed nor undone: {0}, see {1}/log".format(state["phase"], folder),
                             "host_busy")
        time.sleep(0.5)
    guard.Guard(folder).undo(told)
    return told + ", and has been taken back"


def _copy(folder: str, number: int, path: str) -> Optional[Dict[str, Any]]:
    if os.path.islink(path):
        return {"link": os.readlink(path)}
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    name = "before/{0}".format(number)
    shutil.copyfile(path, os.path.join(folder, name))
    return {"copy": name, "mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid, "mtime_ns": status.st_mtime_ns}


def _staged(folder: str, number: int, content: Any) -> Optional[Dict[str, Any]]:
    if content is None:
        return None
    if isinstance(content, str):
        return {"link": content}
    name = "after/{0}".format(number)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(content[1])
    return {"copy": name, "mode": content[0]}


def _missing_folders(paths: Sequence[str]) -> List[str]:
    missing = set()
    for path in paths:
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            missing.add(folder)
            folder = os.path.dirname(folder)
    return sorted(missing)


def _reserve(folder: str, paths: Sequence[str], size: int) -> List[str]:
    """Files that keep space free, one on each file system on which something is to be put back."""
    places = {os.stat(folder).st_dev: folder}
    for path in paths:
        if os.path.isdir(os.path.dirname(path)):
            places.setdefault(os.stat(os.path.dirname(path)).st_dev, os.path.dirname(path))
    made: List[str] = []
    try:
        for place in places.values():
            made.append(os.path.join(place, ".kvmfleet-reserve"))
            with open(made[-1], "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        for path in made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    return made


def write_down(change: Change, token: str, deadline_s: float, folder: str = guard.FOLDER, runner: guard.Runner = guard.run) -> None:
    """The folder from which the guard works, complete and on the disk. Nothing of the host's configuration is touched. Raises FleetError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in ("change.json", "state.json", "log"):
        if os.path.exists(os.path.join(folder, name)):
            os.unlink(os.path.join(folder, name))
    for name in ("before", "after"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        os.mkdir(os.path.join(folder, name), 0o700)
    entries = [{"path": path, "before": _copy(folder, number, path), "after": _staged(folder, number, content)}
               for number, (path, content) in enumerate(sorted(change.files.items()))]
    switches = ""
    if change.switches:
        switches = "before/switches"
        code, text = runner(["sh", "-c", 'exec ovsdb-client --timeout=20 backup > "$0"', os.path.join(folder, switches)], 30.0)
        if code:
            raise FleetError("Open vSwitch's database cannot be saved: {0}".format(text), "open_vswitch")
    size = RESERVE + sum(os.path.getsize(os.path.join(folder, "before", name)) for name in os.listdir(os.path.join(folder, "before")))
    reserves = _reserve(folder, sorted(change.files), size)
    try:
        _write_change(change, token, deadline_s, folder, entries, switches, reserves)
    except OSError:
        for path in reserves:  # nothing names them yet
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        raise


def _write_change(change: Change, token: str, deadline_s: float, folder: str, entries: List[Dict[str, Any]], switches: str, reserves: List[str]) -> None:
    for name in ("guard", "lock"):
        with guard.locked(folder, name):
            pass        # so that their files are there
    data = {"token": token, "deadline": deadline_s, "delay": DELAY_S, "settle": SETTLE_S, "files": entries,
            "made_folders": _missing_folders(sorted(change.files)), "apply": change.steps.apply, "undo": change.steps.undo,
            "reload": change.steps.reload, "boot": change.steps.boot, "expect": list(change.expect), "before": change.before, "made": list(change.made),
            "ports": [list(pair) for pair in change.ports], "vm_ports": list(change.vm_ports), "switches": switches,
            "reserves": reserves}
    guard.write_json(folder, "change.json", data)
    guard.write_file(os.path.join(folder, "guard.py"), inspect.getsource(guard).encode(), 0o700)
    guard.write_json(folder, "state.json", {"phase": "armed", "token": token, "boot": guard.boot_id(), "at": guard.clock()})
    os.sync()


def arm_boot(folder: str = guard.FOLDER) -> None:
    """Have the change taken back at the next start of the host, unless it is confirmed before."""
    guard.write_file(guard.BOOT_UNIT_PATH, _BOOT_UNIT.format(python=sys.executable, folder=folder).encode(), 0o644)
    os.makedirs(os.path.dirname(guard.BOOT_UNIT_LINK), exist_ok=True)
    if not os.path.islink(guard.BOOT_UNIT_LINK):
        os.symlink(guard.BOOT_UNIT_PATH, guard.BOOT_UNIT_LINK)
    os.sync()


def start(token: str, folder: str = guard.FOLDER, runner: guard.Runner = guard.run) -> None:
    """Set the guard to work as a unit of its own, and see it at work. Raises FleetError; nothing of the host's network has been touched then."""
    unit = "kvmfleet-network-{0}".format(token[:12])
    code, text = runner([
        "systemd-run", "--quiet", "--collect", "--unit", unit, "--description", "Change of the network, taken back unless confirmed",
        # what the commands leave behind (dhclient) goes on when the guard ends
        "--property", "KillMode=process", "--property", "Restart=on-failure", "--property", "RestartSec=1", "--property", "OOMScoreAdjust=-900",
        # systemd would give it up after five failures otherwise
        "--property", "StartLimitIntervalSec=0",
        sys.executable, os.path.join(folder, "guard.py"), "watch"], START_S)
    if code:
        disarm(folder, "the guard could not be started")
        raise FleetError("The guard that would take the change back cannot be started, so nothing was changed: {0}".format(text), "no_guard")
    deadline = time.monotonic() + START_S
    while guard.read_json(folder, "state.json").get("phase") == "armed":
        if time.monotonic() > deadline:
            runner(["systemctl", "stop", unit], START_S)
            disarm(folder, "the guard did not start")
            raise FleetError("The guard that would take the change back does not start, so nothing was changed; see journalctl -u {0}".format(unit), "no_guard")
        time.sleep(0.1)


def disarm(folder: str, reason: str) -> None:
    """Give a change up that was not begun."""
    change = guard.Guard(folder)
    change.release()
    change.note("undone", reason=reason)
    guard.disarm_boot()


def confirm(token: str, folder: str = guard.FOLDER) -> Dict[str, Any]:
    """Confirm the change if it is the one and waits for it; its state then."""
    with guard.locked(folder):
        change = guard.Guard(folder)
        state = change.state()
        if state.get("token") == token and state.get("phase") == "applied":
            change.release()
            try:
                change.enter("confirmed")
            except OSError as exc:
                raise FleetError("The change cannot be confirmed, for that cannot be written down: {0}".format(exc), "no_space") from exc
            guard.disarm_boot()
    return guard.read_json(folder, "state.json")


def log_tail(folder: str = guard.FOLDER, lines: int = 30) -> List[str]:
    """The last lines of what the guard did."""
    try:
        with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-lines:]
    except FileNotFoundError:
        return []
