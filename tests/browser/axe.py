# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""axe-core, the accessibility checker: one version of the npm registry, known by its hash, kept in .ansible/cache; without npm that of a wheel on PyPI."""
from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

VERSION = "4.14.1"
INTEGRITY = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="   # SHA-512 of the tarball
# A wheel that carries axe-core, and its SHA-256; what else it needs is not wanted here
WHEEL, WHEEL_SHA256 = "axe-playwright-python==0.1.8", "fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8"
CACHE = Path(__file__).resolve().parents[2] / ".ansible" / "cache"
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: {type: "tag", values: arguments[0]}, resultTypes: ["violations", "incomplete", "passes"]}).then(done, error => done(String(error)));
"""


class AxeMissing(Exception):
    """axe-core cannot be had from npm; the message says why."""


class AxeWrong(Exception):
    """What was had is not what was asked for."""


def is_axe(path: Path) -> bool:
    """Whether the file is the tarball that is meant."""
    return path.is_file() and base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode("ascii") == INTEGRITY


def fetch(folder: Path, package: str = "axe-core") -> Path:
    """The tarball, fetched by npm where it is not there yet. Raises AxeMissing and AxeWrong."""
    wanted = folder / "axe-core-{0}.tgz".format(VERSION)
    if is_axe(wanted):
        return wanted
    npm = shutil.which("npm")
    if npm is None:
        raise AxeMissing("npm is not there, which fetches {0} {1} for the check of accessibility".format(package, VERSION))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="axe-", dir=folder) as made:
        command = [npm, "pack", "--loglevel=error", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=30000", "--pack-destination", made,
                   "{0}@{1}".format(package, VERSION)]
        try:
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=120, check=False)
            said = (done.stderr or done.stdout).strip()[:500] if done.returncode else ""
        except subprocess.TimeoutExpired as exc:
            said = str(exc)
        found = list(Path(made).glob("*.tgz"))
        if said or not found:
            raise AxeMissing("npm could not fetch {0} {1} for the check of accessibility (is its registry reachable?): {2}".format(package, VERSION, said))
        if not is_axe(found[0]):
            raise AxeWrong("what npm fetched as {0} {1} has another hash than {2}, which is the one in tests/browser/axe.py: it is not run".format(
                package, VERSION, INTEGRITY))
        found[0].replace(wanted)   # two runs at once end with the same file
    return wanted


def fetch_wheel(folder: Path) -> Path:
    """The wheel, fetched by pip where it is not there yet. Raises AxeMissing and AxeWrong."""
    wanted = folder / "axe-core.whl"
    if not wanted.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="axe-", dir=folder) as made:
            done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", made, WHEEL], capture_output=True, text=True,
                                  timeout=300, check=False)
            found = list(Path(made).glob("*.whl"))
            if done.returncode or not found:
                raise AxeMissing("pip could not fetch {0} for the check of accessibility: {1}".format(WHEEL, done.stderr.strip()[-500:]))
            found[0].replace(wanted)
    if hashlib.sha256(wanted.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise AxeWrong("{0} has another hash than {1}, which is the one in tests/browser/axe.py: it is not run".format(wanted, WHEEL_SHA256))
    return wanted


def script(folder: Path = CACHE) -> str:
    """axe-core's text: the pinned one, or with a warning the older one of a wheel, so that nothing but PyPI is needed. Raises AxeMissing and AxeWrong."""
    try:
        tarball = fetch(folder)
    except AxeMissing as exc:
        warnings.warn("{0}. The one of {1} checks instead".format(exc, WHEEL), stacklevel=2)
        with zipfile.ZipFile(fetch_wheel(folder)) as wheel:
            return wheel.read("axe_playwright_python/axe.min.js").decode("utf-8")
    with tarfile.open(tarball) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def check(browser, text):
    """What axe-core finds on the page that the browser shows: by outcome the rules with their nodes."""
    # Its own script would not get past the page's content security policy; what the driver runs does
    browser.execute_script(text)
    found = browser.execute_async_script(_RUN, list(TAGS))
    assert not isinstance(found, str), found
    return {outcome: {rule["id"]: rule["nodes"] for rule in found[outcome]} for outcome in ("violations", "incomplete", "passes")}


def told(rules):
    """Rules and their nodes for people."""
    return ["{0}: {1}: {2}".format(rule, " ".join(map(str, node["target"])), node.get("failureSummary", "")) for rule, nodes in rules.items() for node in nodes]
