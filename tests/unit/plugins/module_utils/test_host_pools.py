# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools: what is asked for, libvirt's XML of it, and what an existing pool is refused for."""
from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._host_pools import PoolSpec, check_pool, observed, pool_xml, require_same, require_whole
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

FOLDER = PoolSpec("ssd", path="/srv/ssd")
GROUP = PoolSpec("fast", volume_group="vg0")
EXPORT = PoolSpec("shared", server="nfs.example.org", export="/srv/vms", path="/mnt/vms")

WORDS = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True)
PATHS = WORDS.map(lambda word: "/srv/" + word)
SPECS = st.one_of(
    st.builds(PoolSpec, WORDS, st.sampled_from([None, "dir"]), path=PATHS),
    st.builds(PoolSpec, WORDS, st.sampled_from([None, "logical"]), volume_group=WORDS),
    st.builds(PoolSpec, WORDS, st.sampled_from([None, "netfs"]), path=PATHS, server=WORDS, export=PATHS))


def test_the_type_follows_from_the_source():
    assert [spec.kind for spec in (FOLDER, GROUP, EXPORT, PoolSpec("x"), PoolSpec("x", "netfs"))] == ["dir", "logical", "netfs", "dir", "netfs"]
    assert (GROUP.target, EXPORT.target, PoolSpec("x", path="/srv//x/").target) == ("/dev/vg0", "/mnt/vms", "/srv/x")


@given(SPECS)
def test_a_pool_is_what_its_definition_says(spec):
    check_pool(spec)
    require_whole(spec)
    there = observed(pool_xml(spec))
    assert (there.name, there.type, there.path) == (spec.name, spec.kind, spec.target)
    require_same(spec, there)
    require_same(PoolSpec(spec.name), there)


@given(SPECS, SPECS)
def test_another_source_is_another_pool(one, other):
    there = observed(pool_xml(one))
    wanted = dataclasses.replace(other, name=one.name, type=None)
    same = [getattr(one, f) for f in ("kind", "target", "server", "export")] == [getattr(wanted, f) for f in ("kind", "target", "server", "export")]
    if same:
        require_same(wanted, there)
    else:
        with pytest.raises(SpecError) as caught:
            require_same(wanted, there)
        assert caught.value.code == "pool_differs"
        assert str(there.path) in str(caught.value)


@pytest.mark.parametrize("spec, option", [
    (PoolSpec("x", "logical"), "volume_group"), (PoolSpec("x", "netfs", path="/x"), "server"), (PoolSpec("x", server="nfs", path="/x"), "export"),
    (PoolSpec("x", server="nfs", export="/e"), "path"), (PoolSpec("x"), "path"),
])
def test_a_new_pool_is_said_in_full(spec, option):
    check_pool(spec)
    with pytest.raises(SpecError) as caught:
        require_whole(spec)
    assert caught.value.option == option


@pytest.mark.parametrize("spec, option", [
    (PoolSpec("x", "dir", volume_group="vg0"), "volume_group"), (PoolSpec("x", "dir", path="/x", export="/e"), "export"),
    (PoolSpec("x", path="srv/x"), "path"), (PoolSpec("x", default_path="x"), "default_path"), (PoolSpec("x", server="nfs", export="e", path="/x"), "export"),
    (PoolSpec("x", "logical", path="/dev/vg0", volume_group="vg0"), "path"), (PoolSpec("x", volume_group="/dev/vg0"), "volume_group"),
    (PoolSpec("x", volume_group="vg0", server="nfs"), "server"), (PoolSpec("x", volume_group="--help"), "volume_group"),
])
def test_what_does_not_go_together(spec, option):
    with pytest.raises(SpecError) as caught:
        check_pool(spec)
    assert caught.value.option == option
