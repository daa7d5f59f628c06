# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the picture of the docs anew: the page of the small example fleet.

usage: picture.py FILE.png
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from ansible_collections.kvmfleet.core.tests.browser.browsers import browser  # noqa: E402
from ansible_collections.kvmfleet.core.tests.browser.page_fleets import REFUSED, example, page  # noqa: E402

WIDTH = 1200
LEAST = 800     # the picture ends after the first zone


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, browser() as driver:
        path = Path(folder) / "fleet.html"
        path.write_text(page(**example(), last_run=REFUSED), encoding="utf-8")
        driver.size(WIDTH, LEAST)
        driver.media("light")
        driver.get(path.as_uri())
        end = driver.execute_script("return document.querySelector('.zone').getBoundingClientRect().bottom")
        driver.size(WIDTH, max(LEAST, int(end) + 24))
        driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")
        Path(sys.argv[1]).write_bytes(driver.picture())
    return 0


if __name__ == "__main__":
    sys.exit(main())
