# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of the fleet page: 100 hosts with 3,000 VMs in a browser, from opening the file to the end of loading and the first picture, and a search."""
from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from ansible_collections.kvmfleet.core.tests.browser.browsers import browser
from ansible_collections.kvmfleet.core.tests.browser.page_fleets import large, page

LOADED = """
const done = arguments[0], entry = performance.getEntriesByType("navigation")[0];
requestAnimationFrame(() => requestAnimationFrame(() => done(Math.max(entry.loadEventEnd, performance.now()) / 1000)));
"""
SEARCH = """
const done = arguments[0], field = document.getElementById("q"), began = performance.now();
field.value = "group:shop web";
field.dispatchEvent(new Event("input"));
requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - began) / 1000)));
"""


def figures(runs: int) -> List[Dict[str, Any]]:
    """The figures, each the median of so many rounds."""
    arguments = large()
    made, loaded, found = [], [], []
    with tempfile.TemporaryDirectory(prefix="kfbench-") as folder, browser() as driver:
        path = Path(folder) / "fleet.html"
        for _round in range(runs):
            start = time.monotonic()
            path.write_text(page(**arguments), encoding="utf-8")
            made.append(time.monotonic() - start)
            driver.size(1280, 900)
            driver.get("about:blank")
            driver.get(path.as_uri())
            loaded.append(driver.execute_async_script(LOADED))
            found.append(driver.execute_async_script(SEARCH))
    return [{"name": name, "value": round(statistics.median(values), 3), "unit": "s", "bound": bound, "peer": "absolute"} for name, values, bound in (
        ("page_3000_load_s", loaded, "<= 2"), ("page_3000_search_s", found, "<= 0.5"), ("page_3000_render_s", made, "<= 2"))]
