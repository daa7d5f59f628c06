# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as one HTML file on the control node."""
from __future__ import annotations

import datetime
import json
import os
import tempfile
from typing import Any, Dict, Mapping, Optional

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_page, _fleet_report, _page_html, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._action import CheckedAction, hand_on
from ansible_collections.kvmfleet.core.plugins.plugin_utils._files import mode_of, read_text, write_text
from ansible_collections.kvmfleet.core.plugins.plugin_utils._keys import under_awx
from ansible_collections.kvmfleet.core.plugins.plugin_utils._last_run import utc

display = Display()

_NEW_MODE = 0o600
_MOST_ARTIFACT = 512 << 10   # characters


class ActionModule(CheckedAction):
    """Reads what host_capacity and vm_info registered on each host; see plugins/modules/fleet_page.py for its documentation."""

    ARGUMENTS = {"results": {"type": "str", "default": "vm_result"}, "infos": {"type": "str", "default": "vm_found"}}

    def work(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        _variables.refuse_unknown(load_extra_vars(self._loader))
        values, hosts = self.values("fleet_page"), self.hosts()
        path, mode = self._path(values), mode_of("fleet_page_mode", values["fleet_page_mode"])
        last_run = self._last_run(values)
        before = read_text("fleet_page_path", path)
        if before and _page_html.data_of(before) is None:
            raise SpecError("fleet_page_path", path, "is a file, but no fleet page", "Remove it first, or give another path", "not_ours")
        fleet = _fleet_report.Fleet(hosts, {host.name: self.registered(host.name, args["results"]) for host in hosts}, self.catalogs(), values, self.left_out())
        report = _fleet_report.compose("capacity", fleet)
        if report.failure:
            display.display("\n".join([""] + report.lines + [""]))
            return {"failed": True, "reason": report.reason,
                    "msg": "{0} {1}".format(report.failure, "The page is left as it was" if before is not None else "No page was written")}
        infos = {host.name: self.registered(host.name, args["infos"]) for host in hosts}
        page = _fleet_page.page_of(fleet, report, infos, values["fleet_page_title"], last_run)
        now = utc(datetime.datetime.now(datetime.timezone.utc))
        html = _page_html.render(page, now)
        # A page on which only the time and what is really used are others is written all the same: it says how fresh it is.
        written = write_text("fleet_page_path", path, html, mode, _NEW_MODE, self._task.check_mode)
        result: Dict[str, Any] = {"path": path, "changed": written or _page_html.print_of(before or "") != _page_html.print_of(html)}
        if self._task.diff and result["changed"]:
            result["diff"] = {"before_header": path, "after_header": path, "before": _listed(before), "after": _listed(html)}
        data = dict({key: report.data[key] for key in ("unreachable", "notes")}, verb="fleet_page", path=path, time=now)
        data.update(hosts=len(page.hosts), vms=len(page.data["vms"]))
        told = ["{0}: {1} of {2} up, {3}".format(path, page.up, _count(data["hosts"], "host"), _count(data["vms"], "VM"))]
        told += ["{0}: {1}".format(*pair) for pair in page.silent] + page.notes
        if values["fleet_page_artifact"]:
            if len(html) <= _MOST_ARTIFACT:
                data["html"] = html
            else:
                told.append("The page is not handed on as data: it has {0} KiB, more than {1}".format(len(html) >> 10, _MOST_ARTIFACT >> 10))
        display.display("\n".join([""] + told + [""]))
        return hand_on(result, data)

    def _path(self, values: Mapping[str, Any]) -> str:
        path = str(values["fleet_page_path"] or "").strip()
        if not path:
            path = os.path.join(tempfile.gettempdir(), "kvmfleet-fleet.html") if under_awx(self._vars, os.environ) else "fleet.html"
        return os.path.abspath(os.path.expanduser(path))

    def _last_run(self, values: Mapping[str, Any]) -> Any:
        """The data of the run whose refusals are to be shown; None without one. Raises SpecError."""
        given = values["fleet_page_last_run"]
        if given is None:
            handed = self.value("kvmfleet") if "kvmfleet" in self._vars else None
            return handed if isinstance(handed, Mapping) and handed.get("verb") in ("create", "converge") else None
        if isinstance(given, Mapping):
            return given
        path = os.path.abspath(os.path.expanduser(str(given)))
        text = read_text("fleet_page_last_run", path)
        if text is None:
            raise SpecError("fleet_page_last_run", path, "there is no such file", "Let create_vm write it (vm_result_file), or leave it out",
                            "invalid_last_run")
        try:
            return json.loads(text)
        except ValueError as exc:
            raise SpecError("fleet_page_last_run", path, "is not JSON ({0})".format(exc), "Give the file that create_vm wrote to vm_result_file",
                            "invalid_last_run") from None


def _count(number: int, word: str) -> str:
    return "{0} {1}{2}".format(number, word, "" if number == 1 else "s")


def _listed(html: Optional[str]) -> str:
    """What a page says, for a diff."""
    data = _page_html.data_of(html or "")
    return "".join(line + "\n" for line in _fleet_page.lines(data)) if data else ""
