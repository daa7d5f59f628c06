# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks' last word: a table for people, the same as data for the caller, or the one message of a failure."""
from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _report

display = Display()


class ActionModule(ActionBase):
    """Reads what the tasks before it registered; see plugins/modules/vm_report.py for its documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        checked, args = self.validate_argument_spec(argument_spec={
            "plan": {"type": "str", "default": "vm_plan"},
            "results": {"type": "str", "default": "vm_result"},
            "waited": {"type": "str", "default": "vm_waited"},
        })
        plan = variables.get(args["plan"]) or {}
        registered = {name: self._registered(variables, args[name]) for name in ("results", "waited")}
        # What an earlier request in the same run has left
        if plan.get("wait", "none") == "none" or self._task.check_mode:
            registered["waited"] = {}
        if plan.get("scaling") and not plan.get("vms"):
            registered["results"] = {}
        undone, left = self._undone(variables)
        report = _report.compose(self._context(dict(plan, notes=list(plan.get("notes") or []) + left), undone), registered["results"], registered["waited"])
        display.display("\n".join([""] + report.lines + [""]))
        result["changed"] = False
        # As ansible.builtin.set_stats does it; without one more task.
        result["ansible_stats"] = {"data": {"kvmfleet": report.data}, "per_host": False, "aggregate": False}
        if report.failure:
            result.update(failed=True, msg=report.failure, reason=report.reason)
            del result["ansible_stats"]
        return result

    @staticmethod
    def _registered(variables: Mapping[str, Any], name: str) -> Dict[str, Mapping[str, Any]]:
        """Per host of the play what it registered under a name; hosts that skipped the task are left out."""
        found = {}
        for host in variables.get("ansible_play_hosts_all") or []:
            value = variables["hostvars"][host].get(name)
            if isinstance(value, Mapping) and not value.get("skipped"):
                found[str(host)] = value
        return found

    @staticmethod
    def _undone(variables: Mapping[str, Any]) -> Tuple[List[str], List[str]]:
        """The VMs that were taken back, and a sentence for those of each host that could not be."""
        undone: List[str] = []
        left = []
        for host, items in ((variables.get("vm_undo") or {}).get("work") or {}).items():
            result = variables["hostvars"][host].get("vm_undone") or {}
            names = [item["name"] for item in items]
            if "vms" in result and not result.get("reason"):
                undone += names
            else:
                left.append("{0} on {1} could not be taken back: {2}. Delete {3} when that is mended".format(
                    _report.who(names), host, _report.user_message(result), "it" if len(names) == 1 else "them"))
        return undone, left

    def _context(self, plan: Mapping[str, Any], undone: List[str]) -> _report.Context:
        key = plan.get("key") or {}
        directory = os.path.expanduser(str(plan.get("key_dir") or ""))

        def key_path(name: str) -> Optional[str]:
            if key.get("path") and key.get("name") == name:
                return str(key["path"])
            path = os.path.join(directory, name)
            return path if directory and os.path.exists(path) else None

        scaling = plan.get("scaling") or {}
        notes = list(scaling.get("said") or []) + list(plan.get("notes") or [])
        return _report.Context(verb=str(plan.get("verb")), check=bool(self._task.check_mode), users=plan.get("users") or {}, key_path=key_path,
                               home=os.path.expanduser("~"), key_note=key.get("note"), new_key=key.get("path"), action=plan.get("action"),
                               image=plan.get("image") or None, notes=notes, placement=plan.get("placement"),
                               failure=plan.get("failure"), undone=undone, silent=plan.get("silent") or {},
                               scaling=scaling or None)
