# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks' last word: a table for people, the same as data for the caller, or the one message of a failure."""
from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _last_run, _report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import hand_on
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import who

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
            "after": {"type": "str"},
        })
        result["changed"] = False
        plan = variables.get(args["plan"]) or {}
        if args["after"] is not None:
            told = variables.get(args["after"]) or {}
            if plan.get("failed"):
                return hand_on(result, _report.refused(str(plan.get("verb", "")), str(plan.get("msg")), str(plan.get("reason") or "failed")))
            if told and not told.get("failed"):
                return dict(result, skipped=True, skip_reason="Nothing has failed")
        report = self._compose(variables, args, plan)
        if args["after"] is not None:
            return hand_on(result, _last_run.short(report.data) if report.failure else dict(
                _last_run.short(report.data), failed=True, msg="a task before the report failed; the output says why", reason="failed", hosts={}))
        display.display("\n".join([""] + report.lines + [""]))
        try:
            _last_run.keep(plan.get("result_file"), report.data, self._task.check_mode)
        except SpecError as exc:
            report.failure, report.reason = report.failure or str(exc), report.reason or exc.code
        if report.failure:
            # A failure that handed data on would not be heard: Ansible takes statistics from tasks that went well only. See the option after.
            return dict(result, failed=True, msg=report.failure, reason=report.reason)
        return hand_on(result, _last_run.short(report.data))

    def _compose(self, variables: Mapping[str, Any], args: Mapping[str, Any], plan: Mapping[str, Any]) -> _report.Report:
        registered = {name: self._registered(variables, args[name]) for name in ("results", "waited")}
        # What an earlier request in the same run has left
        if plan.get("wait", "none") == "none" or self._task.check_mode:
            registered["waited"] = {}
        if plan.get("scaling") and not plan.get("vms"):
            registered["results"] = {}
        undone, left = self._undone(variables)
        return _report.compose(self._context(dict(plan, notes=list(plan.get("notes") or []) + left), undone), registered["results"], registered["waited"])

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
                    who(names), host, _report.user_message(result), "it" if len(names) == 1 else "them"))
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
        return _report.Context(
            verb=str(plan.get("verb")), check=bool(self._task.check_mode), users=plan.get("users") or {}, jumps=plan.get("jumps") or {}, key_path=key_path,
            home=os.path.expanduser("~"), key_note=key.get("note"), new_key=key.get("path"), action=plan.get("action"), image=plan.get("image") or None,
            notes=notes, placement=plan.get("placement"), failure=plan.get("failure"), undone=undone, silent=plan.get("silent") or {},
            scaling=scaling or None)
