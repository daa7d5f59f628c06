# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has a host change its links, comes in by a new connection, and confirms; or waits until the host is back as it was, and says what happened."""
from __future__ import annotations

import time
import uuid
from typing import Any, Dict, Mapping, Optional

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

_MODULE = "kvmfleet.core.host_links"
# Every connection is one of its own, and one that was cut ends after some seconds. The first value of an option is the one that ssh takes.
_FRESH = "-o ControlMaster=no -o ControlPath=none -o ServerAliveInterval=3 -o ServerAliveCountMax=2 "
# What the host may take beyond the deadline until it is back: the guard's commands and repairs.
_GRACE_S = 180.0
_PAUSE_S = 1.0
# Connections that come in by the network, and prove by that that the host is reached
_BY_NETWORK = ("ssh", "paramiko", "paramiko_ssh", "libssh", "smart")
_TRIES = 5
# After so long a host that knows nothing of the change has not begun it.
_BEGIN_S = 60.0


class ActionModule(ActionBase):
    """See plugins/modules/host_links.py for its documentation.

    All of it is one task, so that each host has its own deadline, which begins with its own change: hosts of a play neither wait for each other, nor does
    one that is cut off keep the others from confirming.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._token = uuid.uuid4().hex
        self._proof = "connection" if str(self._connection.transport).rpartition(".")[2] in _BY_NETWORK else "gateway"
        first = self._first()
        if first.get("failed") or not first.pop("armed", False):
            return first
        started = time.monotonic()
        if self._proof == "gateway":
            display.warning("{0}: the connection {1} is none of the network, so that no new one can prove that the host is reached. The change is kept "
                            "if a router answers by which the host goes out".format(self._vars.get("inventory_hostname"), self._connection.transport))
        self._connection.reset()
        options = self._connect_anew(float(first["deadline"]))
        try:
            outcome = self._await(started, float(first["deadline"]))
            if outcome.get("phase") == "confirmed":
                return self._finish(first)
        finally:
            for name, value in options.items():
                self._connection.set_option(name, value)
            self._connection.reset()
        return self._failure(first, outcome)

    def _call(self, step: str) -> Dict[str, Any]:
        result: Dict[str, Any] = self._execute_module(_MODULE, module_args=dict(self._task.args, step=step, token=self._token, proof=self._proof),
                                                      task_vars=self._vars)
        return result

    def _first(self) -> Dict[str, Any]:
        """Set the change to work. Where the answer is lost on the way, the host may have begun all the same."""
        self._low_level_execute_command("exit 0")       # a host that is not to be reached at all is unreachable, as everywhere
        try:
            return self._call("apply")
        except AnsibleConnectionFailure as exc:
            if self._task.check_mode:
                raise
            display.vv("{0}: the connection was lost while the change was being started: {1}".format(self._vars.get("inventory_hostname"), exc))
            deadline = self._task.args.get("deadline") or 120
            return {"armed": True, "changed": True, "deadline": deadline, "actions": [], "affected": []}

    def _connect_anew(self, deadline_s: float) -> Dict[str, Any]:
        """Have each connection be a new one; the options that were changed for it, with their values before."""
        if self._connection.transport != "ssh":
            return {}
        before = {name: self._connection.get_option(name) for name in ("ssh_args", "timeout")}
        self._connection.set_option("ssh_args", _FRESH + (before["ssh_args"] or ""))
        self._connection.set_option("timeout", int(max(3, min(int(before["timeout"]), deadline_s / 6))))
        return before

    def _await(self, started: float, deadline_s: float) -> Dict[str, Any]:
        """Try to confirm until the change is confirmed, or taken back, or the host does not come back."""
        seen: Dict[str, Any] = {"phase": "unreachable"}
        trouble = ""
        while time.monotonic() - started < deadline_s + _GRACE_S:
            try:
                # Sending a module to a host that is away tries several ways and warns of each
                self._low_level_execute_command("exit 0")
                answer = self._call("confirm")
                if answer.get("failed"):
                    trouble = str(answer.get("msg"))
                else:
                    seen, trouble = answer, answer.get("trouble") or trouble
            except (AnsibleConnectionFailure, AnsibleError) as exc:
                trouble = " ".join(str(exc).split())
                display.vv("{0}: {1}".format(self._vars.get("inventory_hostname"), trouble))
            late = time.monotonic() - started > _BEGIN_S
            if seen.get("phase") in ("confirmed", "undone") or (late and seen.get("phase") == "unknown"):
                break
            time.sleep(_PAUSE_S)
        return dict(seen, trouble=trouble)

    def _finish(self, first: Dict[str, Any]) -> Dict[str, Any]:
        last: Dict[str, Any] = {}
        for attempt in range(_TRIES):
            try:
                last = self._call("networks")
                break
            except AnsibleConnectionFailure:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE_S)
        if last.get("failed"):
            return dict(last, changed=True, affected=first["affected"])
        if last.get("wrong"):
            display.warning("{0}: not yet as declared: {1}".format(self._vars.get("inventory_hostname"), "; ".join(last["wrong"])))
        return dict(first, changed=True, actions=first["actions"] + [text for text in last.get("actions", []) if text not in first["actions"]])

    @staticmethod
    def _failure(first: Mapping[str, Any], outcome: Mapping[str, Any]) -> Dict[str, Any]:
        what = "The change of this host's networks ({0})".format(", ".join(first["affected"]) or "files only")
        seen = " The last attempt to confirm it said: {0}.".format(outcome["trouble"].rstrip(".")) if outcome.get("trouble") else ""
        result: Dict[str, Any] = {"failed": True, "changed": False, "affected": first["affected"], "actions": first["actions"]}
        phase = outcome.get("phase")
        if phase == "undone":
            failed = "failed on the host" in str(outcome.get("reason"))
            left = " Not as before is: {0}.".format("; ".join(outcome["left"])) if outcome.get("left") else ""
            return dict(result, reason="change_failed" if failed else "cut_off", log=list(outcome.get("log", [])), msg=(
                "{0} was taken back: {1}.{2} Its files are the old ones again, and the host is reached as before.{3}".format(
                    what, str(outcome["reason"]).rstrip("."), "" if failed else seen, left)))
        if phase == "unknown":
            return dict(result, reason="change_failed", msg="{0} was not begun: the connection was lost before.{1}".format(what, seen))
        return dict(result, reason="unreachable", msg=(
            "{0} cut the host off, and it has not come back.{1} Its unit kvmfleet-network-* takes the change back by itself; if it does not, restart the host, "
            "which does so too.".format(what, seen)))
