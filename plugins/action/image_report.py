# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of the images on the hosts, and which of them are to go."""
from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _image_report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import FleetAction

display = Display()


class ActionModule(FleetAction):
    """Reads what base_image_info registered on each host; see plugins/modules/image_report.py for its documentation."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        checked, args = self.validate_argument_spec(argument_spec={
            "results": {"type": "str", "default": "base_image_stock"},
            "confirm": {"type": "int"},
            "all": {"type": "bool", "default": False},
        })
        result["changed"] = False
        try:
            self.start(task_vars or {})
            stocks = {host.name: self.registered(host.name, args["results"]) for host in self.hosts()}
            notes: List[str] = []
            catalog = _image_report.volumes_of(self.own_catalogs(), notes)
            if notes and args["confirm"] is not None and not args["all"]:
                raise SpecError("base_image_confirm", args["confirm"], "the catalog has faults, so it is not known what it offers: " + notes[0],
                                "Correct it first")
            report = _image_report.compose(stocks, catalog, args["all"], args["confirm"], bool(self._task.check_mode))
        except SpecError as exc:
            return dict(result, failed=True, msg=str(exc), reason=exc.code)
        display.display("\n".join([""] + report.lines + notes + [""]))
        if report.failure:
            return dict(result, failed=True, msg=report.failure, reason=report.reason)
        # As ansible.builtin.set_stats does it; without one more task.
        return dict(result, remove=report.data["remove"], ansible_stats={"data": {"kvmfleet": report.data}, "per_host": False, "aggregate": False})
