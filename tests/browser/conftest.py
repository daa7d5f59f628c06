# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One browser for all tests, and pages of made-up fleets to look at."""
from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from ansible_collections.kvmfleet.core.tests.browser import axe
from ansible_collections.kvmfleet.core.tests.browser.browsers import browser as started
from ansible_collections.kvmfleet.core.tests.browser.page_fleets import REFUSED, example, large, page, troubled


@pytest.fixture(scope="session")
def one_browser():
    with started() as driver:
        yield driver


@pytest.fixture
def browser(one_browser):
    """The browser, as a desktop of somebody who likes it light; whatever the page asked for or complained of fails the test."""
    one_browser.size(1280, 900)
    one_browser.media("light")
    one_browser.get("about:blank")
    for kind in ("browser", "performance"):
        one_browser.get_log(kind)
    yield one_browser
    assert one_browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in one_browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked and {urlsplit(url).scheme for url in asked} <= {"file", "data", "about"}


@pytest.fixture(scope="session")
def axe_script():
    """axe-core. Where it cannot be had the tests fail; they are never skipped."""
    return axe.script()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Addresses of pages: C(small) with a dead host and refusals, C(troubled) where much is wrong, and C(large)."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {"small": page(**example(), last_run=REFUSED), "troubled": page(**troubled()),
             "large": page(**large(), last_run=REFUSED)}
    for name, text in texts.items():
        (folder / (name + ".html")).write_text(text, encoding="utf-8")
    return {name: (folder / (name + ".html")).as_uri() for name in texts}
