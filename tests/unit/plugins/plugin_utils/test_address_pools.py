# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address pools against a plain list of addresses, and every fault by its key."""
from __future__ import annotations

import ipaddress
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _address_pools
from ansible_collections.kvmfleet.core.plugins.plugin_utils._address_pools import AddressPool, read_pool
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs

LAN = {"cidr": ["192.0.2.0/24", "2001:db8::/64"], "gateway": "192.0.2.1"}


def catalogs(pool: Dict[str, Any], network: Optional[Dict[str, Any]] = None) -> Catalogs:
    return Catalogs({"kvmfleet_ip_pools": {"web": pool}, "kvmfleet_networks": {"lan": LAN if network is None else network, "bare": {}}})


def pool_of(*ranges: str, **more: Any) -> AddressPool:
    return read_pool("web", catalogs(dict({"network": "lan", "ranges": list(ranges)}, **more)))


@pytest.mark.parametrize("ranges, more, size", [
    (["192.0.2.10-192.0.2.19"], {}, 10), (["192.0.2.10"], {}, 1), (["192.0.2.16/28"], {}, 16), (["192.0.2.0/24"], {}, 253),
    (["192.0.2.0 - 192.0.2.1", "192.0.2.254-192.0.2.255"], {}, 1), (["192.0.2.10-192.0.2.19", "192.0.2.20"], {"excluded": ["192.0.2.12-192.0.2.20"]}, 2),
    (["192.0.2.10"], {"excluded": ["192.0.2.0/28", "2001:db8::1"]}, 0), (["2001:db8::/64"], {}, 2 ** 64 - 1),
    (["2001:db8::10-2001:db8::1f"], {"excluded": ["2001:DB8::12"]}, 15),
])
def test_size(ranges: List[str], more: Dict[str, Any], size: int) -> None:
    assert pool_of(*ranges, **more).size == size


@pytest.mark.parametrize("cidr, size", [("10.0.0.0/8", 2 ** 24 - 2), ("192.0.2.0/31", 2), ("192.0.2.7/32", 1), ("2001:db8::/127", 2), ("2001:db8::/126", 3)])
def test_size_of_a_whole_network(cidr: str, size: int) -> None:
    assert read_pool("web", catalogs({"network": "lan", "ranges": [cidr]}, {"cidr": cidr})).size == size


@pytest.mark.parametrize("pool, key, value, words", [
    ({"ranges": []}, "ranges", None, "is empty"),
    ({}, "ranges", None, "is empty"),
    ({"ranges": ["192.0.2.19-192.0.2.10"]}, "ranges", "192.0.2.19-192.0.2.10", "ends before it begins. Write 192.0.2.10-192.0.2.19"),
    ({"ranges": ["192.0.3.10-192.0.3.12"]}, "ranges", "192.0.3.10-192.0.3.12", r"is not within the network \(192.0.2.0/24, 2001:db8::/64\)"),
    ({"ranges": ["192.0.2.250-192.0.3.5"]}, "ranges", "192.0.2.250-192.0.3.5", "is not within"),
    ({"ranges": ["192.0.2.10-192.0.2.19", "192.0.2.16/30"]}, "ranges", "192.0.2.16/30", "overlaps 192.0.2.10-192.0.2.19"),
    ({"ranges": ["192.0.2.10-2001:db8::5"]}, "ranges", "192.0.2.10-2001:db8::5", "begins with IPv4 and ends with IPv6"),
    ({"ranges": ["192.0.2.10", "2001:db8::5"]}, "ranges", "2001:db8::5", "is IPv6, and 192.0.2.10 is IPv4"),
    ({"ranges": ["192.0.2.10-19"]}, "ranges", "192.0.2.10-19", "19 is not an address"),
    ({"ranges": ["192.0.2.10-"]}, "ranges", "192.0.2.10-", "an empty text is not an address"),
    ({"ranges": ["the-others"]}, "ranges", "the-others", "the is not an address"),
    ({"ranges": ["192.0.2.17/28"]}, "ranges", "192.0.2.17/28", "Write 192.0.2.16/28, or 192.0.2.17 for the address"),
    ({"ranges": ["192.0.2.16/77"]}, "ranges", "192.0.2.16/77", "not appear to be an IPv4 or IPv6 network"),
    ({"ranges": ["192.0.2.10"], "excluded": ["192.0.2.300"]}, "excluded", "192.0.2.300", "is not an address"),
    ({"ranges": ["192.0.2.10"], "excluded": ["192.0.2.3-192.0.2.2"]}, "excluded", "192.0.2.3-192.0.2.2", "ends before"),
    ({"ranges": ["192.0.2.10"], "network": "bare"}, "network", "bare", "has no cidr in kvmfleet_networks"),
    ({"ranges": ["192.0.2.10"], "network": "lam"}, "network", "lam", "Perhaps lan was meant"),
    ({"ranges": ["192.0.2.10"], "network": None}, "network", None, "is missing"),
])
def test_faults_are_named_by_key(pool: Dict[str, Any], key: str, value: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        read_pool("web", catalogs(dict({"network": "lan"}, **pool)))
    assert (caught.value.option, caught.value.value) == ("kvmfleet_ip_pools.web." + key, value)
    assert caught.value.remedy


@pytest.mark.parametrize("cidr", ["169.254.0.0/16", "224.0.0.0/8", "127.0.0.0/8", "fe80::/64", "::/64"])
def test_addresses_that_no_vm_can_have(cidr: str) -> None:
    with pytest.raises(SpecError, match="loopback, link-local, multicast or unspecified"):
        read_pool("web", catalogs({"network": "lan", "ranges": [cidr]}, {"cidr": cidr}))


def test_a_gateway_that_is_none() -> None:
    with pytest.raises(SpecError) as caught:
        read_pool("web", catalogs({"network": "lan", "ranges": ["192.0.2.10"]}, {"cidr": "192.0.2.0/24", "gateway": "router"}))
    assert caught.value.option == "kvmfleet_networks.lan.gateway"


def test_an_unknown_pool_is_named_by_the_network_that_has_it() -> None:
    with pytest.raises(SpecError, match="Perhaps web was meant") as caught:
        read_pool("wep", catalogs({}), "lan")
    assert (caught.value.option, caught.value.code) == ("kvmfleet_networks.lan.pool", "unknown_address_pool")


def test_the_network_may_be_said_on_either_side() -> None:
    found = catalogs({"ranges": ["192.0.2.10"]})
    assert read_pool("web", found, "lan").network == "lan"
    with pytest.raises(SpecError, match="is not the network lan"):
        read_pool("web", catalogs({"network": "bare", "ranges": ["192.0.2.10"]}), "lan")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_address_pools, "HAS_NETADDR", False)
    with pytest.raises(SpecError, match="pip install netaddr") as caught:
        pool_of("192.0.2.10")
    assert caught.value.code == "missing_library"


def test_contains() -> None:
    pool = pool_of("192.0.2.0-192.0.2.19", excluded=["192.0.2.15"])
    assert [pool.contains("192.0.2.{0}".format(n)) for n in (0, 1, 2, 14, 15, 16, 19, 20)] == [False, False, True, True, False, True, True, False]
    assert pool.contains("192.0.2.2/24")
    assert not any(pool.contains(text) for text in ("2001:db8::5", "web1", "", "::ffff:192.0.2.2"))
    assert pool_of("2001:db8::10-2001:db8::1f").contains("2001:0DB8:0::0010/64")


def test_the_first_names_place_and_the_ones_that_follow() -> None:
    pool = pool_of("192.0.2.10-192.0.2.19")
    first = pool.allocate(["web1"], [])["web1"]
    assert first == pool.allocate(["web1"], ["198.51.100.7", "garbage", "2001:db8::10"])["web1"] and first.endswith("/24")
    both = pool.allocate(["web1", "web2"], [first])
    assert first not in both.values()
    everything = pool.allocate(["web{0}".format(i) for i in range(1, 11)], [])
    assert list(everything) == ["web{0}".format(i) for i in range(1, 11)]
    assert everything["web1"] == first and len(set(everything.values())) == 10
    numbers = [int(address.partition("/")[0].rpartition(".")[2]) for address in everything.values()]
    assert numbers == [10 + (numbers[0] - 10 + i) % 10 for i in range(10)]
    assert pool.allocate([], []) == {}


def test_simultaneous_planners_begin_at_different_places() -> None:
    pool = pool_of("192.0.2.0/24")
    begins = {pool.allocate(["vm{0}".format(i)], [])["vm{0}".format(i)] for i in range(50)}
    assert len(begins) > 35


def test_an_exhausted_pool_says_how_full_it_is() -> None:
    pool = pool_of("192.0.2.10-192.0.2.12")
    with pytest.raises(SpecError, match="has 3 addresses, 2 in use, 2 asked for") as caught:
        pool.allocate(["a", "b"], ["192.0.2.10/24", "192.0.2.10", "192.0.2.12", "192.0.2.13"])
    assert (caught.value.code, caught.value.option) == ("pool_exhausted", "kvmfleet_ip_pools.web")
    assert pool.allocate(["a"], ["192.0.2.10", "192.0.2.12"]) == {"a": "192.0.2.11/24"}
    with pytest.raises(SpecError, match="has 0 addresses"):
        pool_of("192.0.2.1").allocate(["a"], [])


def test_large_pools_are_never_listed() -> None:
    big = read_pool("web", catalogs({"network": "lan", "ranges": ["10.0.0.0/8"], "excluded": ["10.9.0.0-10.9.3.77"]}, {"cidr": "10.0.0.0/8"}))
    six = pool_of("2001:db8::/64", excluded=["2001:db8::-2001:db8::ffff"])
    for pool, prefix in ((big, 8), (six, 64)):
        got = pool.allocate(["vm{0}".format(i) for i in range(100)], [])
        assert len(set(got.values())) == 100 and all(pool.contains(a) and a.endswith("/{0}".format(prefix)) for a in got.values())
    assert len(big.intervals) == 2


def test_an_address_that_is_asked_for() -> None:
    pool = pool_of("192.0.2.10-192.0.2.19")
    pool.check_address("vm_ip", "192.0.2.12")
    pool.check_address("vm_ip", "192.0.2.12/24")
    pool.check_address("vm_ip", "2001:db8::5")
    with pytest.raises(SpecError, match="192.0.2.10-192.0.2.19") as caught:
        pool.check_address("vm_ip", "192.0.2.20/24")
    assert (caught.value.option, caught.value.value, caught.value.code) == ("vm_ip", "192.0.2.20/24", "address_outside")
    with pytest.raises(SpecError, match="vm_ip = 'web'"):
        pool.check_address("vm_ip", "web")


def test_a_pool_for_groups() -> None:
    pool = pool_of("192.0.2.10", groups=["red", "green"])
    pool.check_group("vm_network", "red")
    for group in ("blue", None):
        with pytest.raises(SpecError, match="address pool web.*reserved to the groups red, green") as caught:
            pool.check_group("vm_network", group)
        assert (caught.value.option, caught.value.code) == ("vm_network", "not_allowed")
    pool_of("192.0.2.10").check_group("vm_network", None)


spans = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 12)), max_size=4)


@given(spans, spans, st.sets(st.integers(0, 63)), st.integers(0, 70), st.integers(0, 63), st.booleans())
def test_against_a_list_of_addresses(ranges: Any, excluded: Any, taken: Any, count: int, gateway: int, six: bool) -> None:
    """A pool behaves as a plain list of its addresses in ascending order."""
    cidr = ipaddress.ip_network("2001:db8::40/122" if six else "198.51.100.64/26")
    free_of: List[int] = []
    texts: List[str] = []
    for start, length in ranges:
        span = list(range(start, min(63, start + length) + 1))
        if not set(span) & set(free_of):
            free_of += span
            texts.append("{0}-{1}".format(cidr[span[0]], cidr[span[-1]]))
    if not texts:
        return
    out = {n for start, length in excluded for n in range(start, start + length + 1)} | {0, gateway} | (set() if six else {63})
    usable = [cidr[n] for n in sorted(set(free_of) - out)]
    pool = read_pool("web", catalogs({"network": "lan", "ranges": texts, "excluded": ["{0}-{1}".format(cidr[s], cidr[0] + s + n) for s, n in excluded]},
                                     {"cidr": str(cidr), "gateway": str(cidr[gateway])}))
    assert pool.size == len(usable)
    assert [n for n in range(64) if pool.contains(str(cidr[n]))] == [n for n in range(64) if cidr[n] in usable]
    busy = [str(cidr[n]) for n in taken]
    free = [a for a in usable if str(a) not in busy]
    assert pool.used(busy) == len(usable) - len(free)
    names = ["vm{0}".format(i) for i in range(count)]
    if count > len(free):
        with pytest.raises(SpecError, match="{0} in use, {1} asked for".format(len(usable) - len(free), count)):
            pool.allocate(names, busy)
        return
    got = pool.allocate(names, busy)
    assert got == pool.allocate(names, list(reversed(busy)))
    addresses = [ipaddress.ip_interface(got[name]) for name in names]
    assert all(interface.network == cidr for interface in addresses)
    if addresses:
        at = free.index(addresses[0].ip)
        assert [interface.ip for interface in addresses] == [free[(at + i) % len(free)] for i in range(count)]
