# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of what the fleet has and offers, and the same as data for the caller."""
from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_report, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import FleetAction, hand_on
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Report, refused

display = Display()


class ActionModule(FleetAction):
    """Reads what host_capacity registered on each host; see plugins/modules/fleet_report.py for its documentation."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        self.start(task_vars or {})
        checked, args = self.validate_argument_spec(argument_spec={
            "show": {"type": "str", "required": True, "choices": list(_fleet_report.SHOWS)},
            "results": {"type": "str", "default": "vm_result"},
            "after": {"type": "str"},
        })
        result["changed"] = False
        if args["after"] is not None:
            told = self._vars.get(args["after"]) or {}
            if told and not told.get("failed"):
                return dict(result, skipped=True, skip_reason="Nothing has failed")
        try:
            report = self._compose(args)
        except SpecError as exc:
            if args["after"] is not None:
                return hand_on(result, refused(args["show"], str(exc), exc.code))
            return dict(result, failed=True, msg=str(exc), reason=exc.code)
        if args["after"] is not None:
            return hand_on(result, report.data)
        display.display("\n".join([""] + report.lines + [""]))
        if report.failure:
            return dict(result, failed=True, msg=report.failure, reason=report.reason)
        return hand_on(result, report.data)

    def _compose(self, args: Mapping[str, Any]) -> Report:
        _variables.refuse_unknown(load_extra_vars(self._loader))
        hosts = self.hosts()
        return _fleet_report.compose(args["show"], _fleet_report.Fleet(
            hosts, {host.name: self.registered(host.name, args["results"]) for host in hosts}, self.catalogs(), self.values(args["show"]),
            self.left_out()))
