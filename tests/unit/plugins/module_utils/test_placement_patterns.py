# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packing by patterns: the knapsack tables, with and without numpy, and batches on few hosts."""
from __future__ import annotations

import importlib.util
from itertools import product
from typing import Any, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _placement_patterns as patterns
from ansible_collections.kvmfleet.core.plugins.module_utils._placement import place
from ansible_collections.kvmfleet.core.tests.unit.plugins.module_utils.placement_oracle import host, request, violations

_items = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=3)


def _value(picked: Any, values: Any) -> float:
    return float(sum(a * b for a, b in zip(picked, values)))


@settings(max_examples=150, deadline=None)
@given(_items, st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_a_knapsack_is_the_best_of_all(items: List[Any], width: int, height: int, bounded: bool) -> None:
    sizes, values, most = [(a, b) for a, b, _v, _m in items], [float(v) for _a, _b, v, _m in items], [m for _a, _b, _v, m in items]
    limits = most if bounded else [width] * len(items)
    best = max(_value(picked, values) for picked in product(*(range(limit + 1) for limit in limits))
               if sum(n * size[0] for n, size in zip(picked, sizes)) <= width and sum(n * size[1] for n, size in zip(picked, sizes)) <= height)
    found = patterns._bounded(sizes, values, most, width, height) if bounded else patterns._unbounded(sizes, values, width, height)
    assert _value(found, values) == best
    assert sum(n * size[0] for n, size in zip(found, sizes)) <= width and sum(n * size[1] for n, size in zip(found, sizes)) <= height
    assert all(n <= limit for n, limit in zip(found, limits))


def _mixed(count: int) -> Any:
    sizes = [(2, 3), (4, 6), (1, 8), (4, 30), (6, 48), (3, 20)]
    return [request("vm{0}".format(i), *sizes[i * 7 % 6]) for i in range(count)]


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="numpy is not installed here")
def test_numpy_changes_nothing_but_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [host("kvm{0:02}".format(i), 24, 62) for i in range(60)]
    fast = place(_mixed(120), hosts, "pack").as_result()
    monkeypatch.setattr(patterns, "numpy", None)
    assert place(_mixed(120), hosts, "pack").as_result() == fast


def test_a_packed_batch_takes_few_hosts_and_breaks_no_rule() -> None:
    vms, hosts = _mixed(120), [host("kvm{0:02}".format(i), 24, 62) for i in range(60)]
    plan = place(vms, hosts, "pack")
    assert violations(vms, hosts, plan.hosts) == []
    vcpus, memory = sum(vm.vcpus_milli for vm in vms) / 24000, sum(vm.memory_mib for vm in vms) / 62 / 1024
    assert len(set(plan.hosts.values())) <= max(vcpus, memory) * 1.05 + 1


def test_hosts_that_run_anyway_are_filled_first() -> None:
    from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Amount, HostCapacity, Vm
    used = HostCapacity("used", Amount(16000, allocated=8000), Amount(16384, allocated=8192), vms=(Vm("old", 8000, 8192),))
    vms = [request("vm{0}".format(i), 2, 2) for i in range(12)]
    plan = place(vms, [used, host("e1", 16, 16), host("e2", 16, 16)], "pack")
    assert sorted(plan.hosts.values()).count("used") == 4 and len(set(plan.hosts.values())) == 2


def test_patterns_find_a_batch_that_fits_only_exactly() -> None:
    # 3 + 3 + 4 on each host and nothing to spare
    hosts = [host("kvm{0}".format(i), 10, 10) for i in range(6)]
    vms = [request("a{0}".format(i), 3, 3) for i in range(12)] + [request("b{0}".format(i), 4, 4) for i in range(6)]
    for strategy in ("pack", "spread"):
        assert violations(vms, hosts, place(vms, hosts, strategy).hosts) == []
