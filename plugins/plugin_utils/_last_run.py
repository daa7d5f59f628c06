# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a run as a file or a job's artifacts: kept for those who look later, and read for its refusals."""
from __future__ import annotations

import datetime
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._files import write_text
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import who
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import plain

_MOST_REFUSALS = 50
_MODE = 0o600


def utc(now: datetime.datetime) -> str:
    """A time as files and pages have it."""
    return now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def keep(path: Optional[str], data: Mapping[str, Any], check_mode: bool = False) -> None:
    """Write the result of a run to the file of C(vm_result_file), if there is one. Raises SpecError, in check mode too, where that is not possible."""
    if path:
        text = json.dumps(dict(data, time=utc(datetime.datetime.now(datetime.timezone.utc))), indent=1, default=str)
        write_text("vm_result_file", os.path.abspath(os.path.expanduser(str(path))), text + "\n", _MODE, _MODE, check_mode)


def _bad_run(value: Any) -> SpecError:
    return SpecError("fleet_page_last_run", value, "is not the result of a run", "Give what create_vm wrote to vm_result_file, or the artifacts of its job",
                     "invalid_last_run")


def _unwrapped(run: Any) -> Mapping[str, Any]:
    """The data of a run out of itself, a job's artifacts, or a job as AWX's API tells it. Raises SpecError."""
    for key in ("artifacts", "kvmfleet"):
        if isinstance(run, Mapping) and isinstance(run.get(key), Mapping):
            run = run[key]
    if not isinstance(run, Mapping) or not isinstance(run.get("verb"), str):
        raise _bad_run(None)
    return run


def _rows(entries: Any, keys: Sequence[str]) -> List[Dict[str, str]]:
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise _bad_run(None)
    return [{key: plain(entry.get(key) or "") for key in keys} for entry in entries]


def read_run(raw: Any) -> Dict[str, Any]:
    """What the page tells of a run: which hosts were refused to which VMs, and why. Raises SpecError for what is no run's result."""
    run = _unwrapped(raw)
    placement = run.get("placement") or {}
    if not isinstance(placement, Mapping) or not isinstance(placement.get("vms") or [], list) or not isinstance(run.get("vms") or [], list):
        raise _bad_run(None)
    groups: Dict[Any, Tuple[List[str], List[Dict[str, str]]]] = {}
    for vm in placement.get("vms") or []:
        if not isinstance(vm, Mapping):
            raise _bad_run(None)
        rows = _rows(vm.get("refused") or [], ("host", "code", "reason"))
        counts = vm.get("reasons") or {}
        if not rows and isinstance(counts, Mapping):
            rows = [{"host": "1 host" if count == 1 else "{0} hosts".format(plain(count)), "code": plain(code), "reason": ""} for code, count in counts.items()]
        if rows:
            groups.setdefault(tuple(tuple(row.values()) for row in rows), ([], rows))[0].append(plain(vm.get("name") or ""))
    for vm in run.get("vms") or []:
        row = _rows([vm], ("name", "host", "reason", "msg"))[0]
        if row["msg"]:
            groups.setdefault((row["host"], row["msg"]), ([], [{"host": row["host"], "code": row["reason"], "reason": row["msg"]}]))[0].append(row["name"])
    refusals = [{"vms": who(names), "rows": rows} for names, rows in groups.values()]
    return {"verb": plain(run["verb"]), "time": plain(run.get("time") or ""), "message": plain(run.get("msg") or ""), "failed": bool(run.get("failed")),
            "refusals": refusals[:_MOST_REFUSALS], "more": max(0, len(refusals) - _MOST_REFUSALS)}
