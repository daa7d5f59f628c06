# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a run as a file or a job's artifacts: kept for those who look later, and read for its refusals."""
from __future__ import annotations

import datetime
import json
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._files import write_text
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import plain, who

_MOST_REFUSALS = 50
_MOST_HOSTS = 20   # refused ones of a group that are listed each; of more, the reasons with an example
_MODE = 0o600


def utc(now: datetime.datetime) -> str:
    """A time as files and pages have it."""
    return now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def keep(path: Optional[str], data: Mapping[str, Any], check_mode: bool = False) -> None:
    """Write the result of a run to the file of C(vm_result_file), if there is one. Raises SpecError, in check mode too, where that is not possible."""
    if path:
        text = json.dumps(dict(data, time=utc(datetime.datetime.now(datetime.timezone.utc))), indent=1, default=str)
        write_text("vm_result_file", os.path.abspath(os.path.expanduser(str(path))), text + "\n", _MODE, _MODE, check_mode)


def short(data: Mapping[str, Any]) -> Dict[str, Any]:
    """The result of a run as artifacts have it: of the refused hosts the counts and examples; every one of them is in the file."""
    placement = data.get("placement")
    if not placement:
        return dict(data)
    groups = [{key: value for key, value in group.items() if key != "hosts"} for group in placement.get("refusals") or []]
    return dict(data, placement=dict(placement, refusals=groups))


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


def _strings(value: Any) -> List[str]:
    if not isinstance(value, list):
        raise _bad_run(None)
    return [plain(item) for item in value]


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _bad_run(None)
    return value


def _counted(counts: Any, examples: Any) -> List[Dict[str, str]]:
    """A row for each reason, with how many hosts it holds for, and the example that was kept of it."""
    rows, examples = [], _mapping(examples or {})
    for code, count in _mapping(counts or {}).items():
        example = _mapping(examples.get(code) or {})
        host = "1 host" if count == 1 else "{0} hosts".format(plain(count))
        named = plain(example.get("host") or "")
        rows.append({"host": (named if count == 1 else "{0}, such as {1}".format(host, named)) if named else host, "code": plain(code),
                     "reason": plain(example.get("reason") or "")})
    return rows


def _placed(placement: Mapping[str, Any]) -> Iterator[Tuple[List[str], List[Dict[str, str]]]]:
    """VMs, and why they were not put on which hosts."""
    groups = placement.get("refusals")
    told = placement.get("vms") or []
    if not isinstance(told, list) or not isinstance(groups or [], list):
        raise _bad_run(None)
    if groups is None:
        for vm in told:
            yield [plain(_mapping(vm).get("name") or "")], _rows(vm.get("refused") or [], ("host", "code", "reason")) or _counted(vm.get("reasons"), {})
    for group in groups or []:
        hosts = _rows(_mapping(group).get("hosts") or [], ("host", "code", "reason"))
        counts = _counted(group.get("reasons"), group.get("examples"))
        yield _strings(group.get("vms") or []), hosts if 0 < len(hosts) <= _MOST_HOSTS else counts or hosts


def read_run(raw: Any) -> Dict[str, Any]:
    """What the page tells of a run: which hosts were refused to which VMs, and why. Raises SpecError for what is no run's result."""
    run = _unwrapped(raw)
    placement = run.get("placement") or {}
    if not isinstance(placement, Mapping) or not isinstance(run.get("vms") or [], list):
        raise _bad_run(None)
    groups: Dict[Any, Tuple[List[str], List[Dict[str, str]]]] = {}
    for names, rows in _placed(placement):
        if rows:
            groups.setdefault(tuple(tuple(row.values()) for row in rows), ([], rows))[0].extend(names)
    for vm in run.get("vms") or []:
        row = _rows([vm], ("name", "host", "reason", "msg"))[0]
        if row["msg"]:
            groups.setdefault((row["host"], row["msg"]), ([], [{"host": row["host"], "code": row["reason"], "reason": row["msg"]}]))[0].append(row["name"])
    refusals = [{"vms": who(names), "names": names if len(names) > 3 else [], "rows": rows} for names, rows in groups.values()]
    return {"verb": plain(run["verb"]), "time": plain(run.get("time") or ""), "message": plain(run.get("msg") or ""), "failed": bool(run.get("failed")),
            "refusals": refusals[:_MOST_REFUSALS], "more": max(0, len(refusals) - _MOST_REFUSALS)}
