# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted for whom, and what is left: integers, exactly."""
from __future__ import annotations

import dataclasses
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _capacity, _domain_xml
from ansible_collections.kvmfleet.core.plugins.module_utils._overhead import qemu_overhead_mib
from ansible_collections.kvmfleet.core.plugins.module_utils._capacity import DomainRecord, Policy, Resource, compute, policy_from_params, pool_use, requests_of
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata, VolumeRef
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, VmSpec

MIB = 1 << 20
RATIOS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 4.0])


class Connection:
    """A host of 8 CPUs and 16384 MiB."""

    def getInfo(self):
        return ["x86_64", 16384, 8, 0, 1, 1, 8, 1]


class Volume:
    """A volume of virtual size and of what it really takes."""

    def __init__(self, name, size, allocation):
        self._name, self._info = name, (0, size, allocation)

    def name(self):
        return self._name

    def info(self):
        return self._info


class Pool:
    """A pool below /p with these volumes."""

    def __init__(self, *volumes, capacity=1000 * MIB, free=600 * MIB):
        self.name, self.handle, self._info, self._volumes = "p", self, (2, capacity, capacity - free, free), volumes

    def info(self):
        return self._info

    def volumes(self):
        return list(self._volumes)

    def path_of(self, name):
        return "/p/" + name


def domain(name="a", active=False, vcpus=1000, memory=100, metadata=None, paths=()):
    """A record as it is read from libvirt."""
    values = {"name": name, "uuid": name, "active": active, "vcpus_milli": vcpus, "memory_mib": memory, "metadata": metadata, "macs": [], "paths": list(paths),
              "root": None}
    return DomainRecord(**values)


@given(st.integers(0, 10 ** 9), st.integers(0, 10 ** 6), RATIOS, st.integers(0, 10 ** 9))
def test_available(total, reserved, ratio, allocated):
    """(total - reserved) x ratio - allocated, which what is given out makes smaller one by one."""
    resource = Resource(total, reserved, ratio, allocated)
    assert resource.available == int((total - reserved) * ratio) - allocated
    assert dataclasses.replace(resource, allocated=allocated + 1).available == resource.available - 1
    shown = resource.as_dict("mib")
    assert all(key.endswith("_mib") for key in shown if key != "ratio") and all(isinstance(shown[k], int) for k in shown if k != "ratio")


@given(st.lists(st.tuples(st.integers(1, 64000), st.integers(1, 10 ** 6), st.booleans(), st.sampled_from([None, "pending", "building", "ready", "deleting"]))),
       st.sampled_from([0.0, 0.5, 1.0]))
def test_sums(domains, factor):
    """Running ones and claims count in full, other stopped ones by the factor; used is what runs."""
    records = [domain(str(i), active, vcpus, memory, None if phase is None else VmMetadata(phase=phase))
               for i, (vcpus, memory, active, phase) in enumerate(domains)]
    found = compute(Connection(), records, Policy(stopped_factor=factor))
    weights = [1.0 if active or phase in ("pending", "building") else factor for _v, _m, active, phase in domains]
    assert found["vcpus"].allocated == sum(int(d[0] * w) for d, w in zip(domains, weights))
    assert found["memory"].allocated == sum(int(d[1] * w) for d, w in zip(domains, weights))
    assert found["memory"].used == sum(d[1] for d in domains if d[2]) and found["vcpus"].total == 8000


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 4096), st.integers(0, 4096), st.none() | st.integers(1, 9000), st.none() | st.integers(1, 9000))
def test_who_counts_with_what(vcpus, more_vcpus, memory, more_memory, vcpus_request, memory_request):
    """Ours with their request, else with what they may use now; others with their maximum."""
    spec = VmSpec("a", uuid="u", vcpus=vcpus, max_vcpus=vcpus + more_vcpus, memory_mib=memory, max_memory_mib=memory + more_memory)
    observed = _domain_xml.observe(_domain_xml.render(spec, None, _domain_xml.Context()))
    # with one disk, one NIC and so on as the definition has them
    share = functools.partial(qemu_overhead_mib, disks=len(observed.disks), nics=len(observed.nics))
    most = (memory + more_memory, vcpus + more_vcpus)
    assert requests_of(observed) == (most[1] * 1000, most[0] + share(*most))
    ours = dataclasses.replace(observed, metadata=VmMetadata(vcpus_request_milli=vcpus_request, memory_request_mib=memory_request))
    counted = memory if memory_request is None else memory_request
    assert requests_of(ours) == (vcpus * 1000 if vcpus_request is None else vcpus_request, counted + share(memory, vcpus))


def test_the_disk_of_a_pool():
    """Listed volumes with size or reserve though they are not there yet, attached ones with their size, the rest with what it takes."""
    meta = VmMetadata(volumes=[VolumeRef("root", "p", "root", 50 * MIB), VolumeRef("data", "p", "not-made-yet", 30 * MIB),
                               VolumeRef("x", "p", "light", 40 * MIB, reserve=0), VolumeRef("y", "elsewhere", "far", 70 * MIB)])
    pool = Pool(Volume("root", 50 * MIB, MIB), Volume("light", 40 * MIB, 2 * MIB), Volume("attached", 20 * MIB, 3 * MIB), Volume("image", 100 * MIB, 7 * MIB))
    records = [domain("a", metadata=meta), domain("b", paths=["/p/attached", "/p/root"])]
    use = pool_use(pool, records, Policy())
    assert use.resource.allocated == (50 + 30 + 0 + 20 + 7) * MIB
    assert use.resource.available == (1000 - 107) * MIB and use.free == 600 * MIB and use.resource.used == 400 * MIB
    assert use.others == ["attached", "image"]
    policy = Policy(totals={"disk": 200 * MIB}, reserved={"vcpus": 0, "memory": 0, "disk": 50 * MIB}, ratios={"vcpus": 1.0, "memory": 1.0, "disk": 2.0})
    assert pool_use(pool, records, policy).resource.available == (300 - 107) * MIB
    assert pool_use(pool, [], Policy()).resource.allocated == (1 + 2 + 3 + 7) * MIB


def test_policies():
    """Units are read, strings too; what makes no sense is refused by name."""
    policy = policy_from_params({"ratios": {"vcpus": 2, "memory": None}, "reserved": {"memory": "1GiB", "disk": "0"}, "totals": {"vcpus": "16", "disk": "1TiB"},
                                 "stopped_factor": "0.5"})
    assert policy.ratios == {"vcpus": 2.0, "memory": 1.0, "disk": 1.0} and policy.reserved == {"vcpus": 0, "memory": 1024, "disk": 0}
    assert policy.totals == {"vcpus": 16, "disk": 1 << 40} and policy.stopped_factor == 0.5
    assert _capacity.host_totals(Connection(), policy) == (16, 16384)
    assert policy_from_params({}) == Policy()
    for params, option in (({"ratios": {"disk": -1}}, "ratios.disk"), ({"reserved": {"vcpus": -1}}, "reserved.vcpus"),
                           ({"totals": {"memory": "1"}}, "totals.memory"), ({"stopped_factor": 1.5}, "stopped_factor")):
        with pytest.raises(SpecError) as caught:
            policy_from_params(params)
        assert caught.value.option == option


def test_a_ratio_counts_as_it_is_written():
    assert Resource(total=100, reserved=0, ratio=1.15).available == 115
