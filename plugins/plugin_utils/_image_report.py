# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images of the hosts can go, as a table for people and as a list for whoever removes them. Pure."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._images import image_volume_name
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, human_size
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs
from ansible_collections.kvmfleet.core.plugins.plugin_utils._report import Report, user_message
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import drop_empty, table

_COLUMNS = (("host", "left"), ("pool", "left"), ("image", "left"), ("volume", "left"), ("size", "right"), ("result", "left"))


def volumes_of(catalogs: Catalogs, notes: List[str]) -> Dict[str, str]:
    """Image by the volume that it is in. Faults of entries go into C(notes)."""
    found = {}
    for name in catalogs.names("kvmfleet_images"):
        try:
            entry = catalogs.entry("kvmfleet_images", name)
            if entry.get("source") or entry.get("volume"):
                found[image_volume_name(name, entry)] = name
        except SpecError as exc:
            notes.append(str(exc))
    return found


def compose(stocks: Mapping[str, Mapping[str, Any]], catalog: Mapping[str, str], every: bool, confirm: Optional[int], check: bool) -> Report:
    """The table; in its data C(remove), the images that are to go by host, which is empty until their number is confirmed.

    :param stocks: per host what base_image_info returned
    :param catalog: image by volume: those that the site's catalog offers
    :param every: whether those are to go too
    :param confirm: how many the user says are to go
    """
    report = Report()
    rows: List[List[Any]] = []
    chosen: Dict[str, List[Dict[str, str]]] = {}
    for host in sorted(stocks):
        for item in stocks[host].get("images") or []:
            keep = item["needed"] or ("in the catalog" if item["volume"] in catalog and not every else None)
            if keep is None:
                chosen.setdefault(host, []).append({"pool": item["pool"], "volume": item["volume"]})
            rows.append([host, item["pool"], catalog.get(item["volume"]), item["volume"], human_size(item["size_bytes"]), keep])
    count = sum(len(items) for items in chosen.values())
    confirmed = confirm is not None and confirm == count
    word = ("would be removed" if check else "removed") if confirmed else "unused"
    rows = [row[:5] + ["kept: " + row[5] if row[5] else word] for row in rows]
    if rows:
        report.lines += table(*drop_empty(_COLUMNS, rows, [name for name, _align in _COLUMNS if name != "image"])) + [""]
    report.lines.append("{0}, {1} unused".format("1 image" if len(rows) == 1 else "{0} images".format(len(rows)), count))
    failed = {host: user_message(result) for host, result in sorted(stocks.items()) if "images" not in result}
    report.lines += ["{0}: {1}".format(host, text) for host, text in failed.items()]
    images = [dict(item, host=host) for host in sorted(stocks) for item in stocks[host].get("images") or []]
    report.data = {"unused": count, "remove": chosen if confirmed else {}, "images": images}
    if failed and len(failed) == len(stocks):
        report.failure, report.reason = " ".join("{0}: {1}".format(*pair) for pair in failed.items()), "failed"
    elif confirm is not None and not confirmed:
        report.failure, report.reason = str(SpecError("base_image_confirm", confirm, "{0} images are unused".format(count),
                                                      "Look at the table, then say base_image_confirm={0}".format(count))), "not_confirmed"
    elif count and not confirmed:
        report.lines.append("To remove what is unused: -e base_image_confirm={0}".format(count))
    return report
