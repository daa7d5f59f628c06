# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images may go, and that none goes without its number being said."""
from __future__ import annotations

import pytest

from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs
from ansible_collections.kvmfleet.core.plugins.plugin_utils._image_report import compose, volumes_of

OLD, NEW, USED = "base-debian-12-0a1b2c3d4e5f.qcow2", "base-debian-12-ffffffffffff.qcow2", "base-rocky-9-0a1b2c3d4e5f.qcow2"


def item(volume, needed=None):
    return {"volume": volume, "pool": "images", "volume_path": "/images/" + volume, "size_bytes": 1 << 20, "needed": needed}


STOCKS = {"kvm1": {"images": [item(OLD), item(NEW), item(USED, "it is the backing file of web-root")]}, "kvm2": {"images": [item(OLD)]}}


def test_what_is_needed_or_on_offer_stays():
    report = compose(STOCKS, {NEW: "debian:12"}, False, None, False)
    assert (report.data["unused"], report.data["remove"], report.failure) == (2, {}, None)
    text = "\n".join(report.lines)
    assert "kept: it is the backing file of web-root" in text
    assert "kept: in the catalog" in text
    assert "base_image_confirm=2" in text


def test_the_right_number_removes_exactly_those():
    report = compose(STOCKS, {NEW: "debian:12"}, False, 2, False)
    assert report.data["remove"] == {host: [{"pool": "images", "volume": OLD}] for host in ("kvm1", "kvm2")}
    assert report.failure is None


def test_those_of_the_catalog_go_when_asked_for():
    report = compose(STOCKS, {NEW: "debian:12"}, True, 3, False)
    assert sorted(i["volume"] for i in report.data["remove"]["kvm1"]) == sorted([OLD, NEW])


@pytest.mark.parametrize("number", [0, 1, 3])
def test_another_number_is_refused(number):
    report = compose(STOCKS, {NEW: "debian:12"}, False, number, False)
    assert report.data["remove"] == {}
    assert "base_image_confirm = {0}:".format(number) in report.failure
    assert "base_image_confirm=2" in report.failure


def test_a_host_that_cannot_be_asked_is_named_and_does_not_stop_the_others():
    report = compose(dict(STOCKS, kvm3={"msg": "no such pool", "reason": "unknown_pool"}), {}, False, None, False)
    assert report.failure is None
    assert "kvm3: no such pool" in report.lines
    assert compose({"kvm3": {"msg": "no such pool"}}, {}, False, None, False).failure == "kvm3: no such pool"


def test_faults_of_the_catalog_are_told():
    notes = []
    found = volumes_of(Catalogs({"kvmfleet_images": {"a:1": {"source": "build"}, "b:1": {"source": "url"}, "c:1": {"volume": "c.qcow2"}}}), notes)
    assert list(found.values()) == ["a:1", "c:1"]
    assert len(notes) == 1 and "url" in notes[0]
