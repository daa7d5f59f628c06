# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium without a screen, driven by selenium."""
from __future__ import annotations

import base64
import contextlib
import shutil
import tempfile

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

# As root there is no sandbox; the rest keeps Chromium from calling Google.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars")


class Browser(webdriver.Chrome):
    """A browser with what the tests need besides selenium's own."""

    def size(self, width, height, scale=1):
        """Look through a window of this size."""
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500})

    def media(self, scheme="light", kind=""):
        """Be somebody who wants light or dark, on a screen or on paper."""
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def picture(self, whole=False):
        """What is seen, as a PNG; the page as a whole with C(whole)."""
        return base64.b64decode(self.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})["data"])

    def pdf(self):
        """The page on paper."""
        return base64.b64decode(self.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False, "paperWidth": 8.27,
                                                                         "paperHeight": 11.69})["data"])


@contextlib.contextmanager
def browser():
    """A browser with a profile of its own, for the length of the block."""
    profile = tempfile.mkdtemp(prefix="kvmfleet-browser-")
    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, "--user-data-dir=" + profile):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = Browser(options=options, service=Service(shutil.which("chromedriver")))
        driver.set_script_timeout(300)  # for a machine that is busy with other things
        try:
            yield driver
        finally:
            driver.quit()
    finally:
        shutil.rmtree(profile, ignore_errors=True)
