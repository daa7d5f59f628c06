# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of the images on the hosts, and which of them are to go."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping

from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _image_report
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import CheckedAction, hand_on

display = Display()


class ActionModule(CheckedAction):
    """Reads what base_image_info registered on each host; see plugins/modules/image_report.py for its documentation."""

    ARGUMENTS = {
        "results": {"type": "str", "default": "base_image_stock"},
        "confirm": {"type": "int"},
        "all": {"type": "bool", "default": False},
    }

    def work(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        stocks = {host.name: self.registered(host.name, args["results"]) for host in self.hosts()}
        notes: List[str] = []
        catalog = _image_report.volumes_of(self.own_catalogs(), notes)
        if notes and args["confirm"] is not None and not args["all"]:
            raise SpecError("base_image_confirm", args["confirm"], "the catalog has faults, so it is not known what it offers: " + notes[0],
                            "Correct it first")
        report = _image_report.compose(stocks, catalog, args["all"], args["confirm"], bool(self._task.check_mode))
        display.display("\n".join([""] + report.lines + notes + [""]))
        if report.failure:
            return {"failed": True, "msg": report.failure, "reason": report.reason}
        return hand_on({"remove": report.data["remove"]}, report.data)
