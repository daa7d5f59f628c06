# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address pools (catalog kvmfleet_ip_pools): which addresses VMs of a network get without being told one. Pure.

A pool is kept as a few intervals and never as a list, so that a /8 or an IPv6 /64 costs no more than ten addresses.
"""
from __future__ import annotations

import bisect
import ipaddress
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._placement_ledger import tie_break
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, check_address
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, check_allowed, cidrs_of

try:
    import netaddr
    HAS_NETADDR = True
except ImportError:
    HAS_NETADDR = False

_HOW = "Write addresses such as 192.0.2.10, 192.0.2.10-192.0.2.19 or 192.0.2.16/28"


@dataclass
class AddressPool:
    """The addresses of one pool that VMs may have."""

    name: str
    network: str
    groups: List[str] = field(default_factory=list)
    intervals: List[Tuple[int, int]] = field(default_factory=list)   # first and last, ascending, of one family, without what no VM may have
    family: int = 4
    cidrs: List[Any] = field(default_factory=list)                   # the network's, of the pool's family

    def __post_init__(self) -> None:
        self._before = [0]   # how many addresses come before each interval, and at last all of them
        for first, last in self.intervals:
            self._before.append(self._before[-1] + last - first + 1)
        self._firsts = [first for first, last in self.intervals]

    @property
    def size(self) -> int:
        """How many addresses VMs can get: without network and broadcast address, gateway, and what is excluded."""
        return self._before[-1]

    def _rank(self, address: str) -> Optional[int]:
        """The place of an address in the pool, counted from 0. None where it is none of the pool's."""
        try:
            parsed = netaddr.IPAddress(str(address).partition("/")[0].strip(), flags=netaddr.INET_PTON)
        except (netaddr.AddrFormatError, ValueError):
            return None
        if parsed.version != self.family:
            return None
        number = int(parsed)
        at = bisect.bisect_right(self._firsts, number) - 1
        if at < 0 or number > self.intervals[at][1]:
            return None
        return self._before[at] + number - self._firsts[at]

    def _at(self, rank: int) -> str:
        """The address at a place, with the prefix length of the network that it is in."""
        interval = bisect.bisect_right(self._before, rank) - 1
        address = netaddr.IPAddress(self._firsts[interval] + rank - self._before[interval], self.family)
        prefix = next(int(cidr.prefixlen) for cidr in self.cidrs if address in cidr)
        return "{0}/{1}".format(address, prefix)

    def contains(self, address: str) -> bool:
        """Whether the pool could give a VM this address (with or without prefix length)."""
        return self._rank(address) is not None

    def used(self, taken: Collection[str]) -> int:
        """How many of the pool's addresses are among those that are taken."""
        return len(self._ranks(taken))

    def _ranks(self, taken: Collection[str]) -> Dict[int, None]:
        return {rank: None for rank in map(self._rank, taken) if rank is not None}

    def allocate(self, names: Sequence[str], taken: Collection[str]) -> Dict[str, str]:
        """An address with prefix length for each name.

        The first name's place follows from that name, so that simultaneous runs for different VMs do not all begin with the same address, and
        check mode says what the real run does; the other names get the next free ones. Raises SpecError C(pool_exhausted).

        :param taken: addresses that somebody has, of this pool or not, with or without prefix length
        """
        wanted = list(dict.fromkeys(names))
        used = self._ranks(taken)
        if len(used) + len(wanted) > self.size:
            raise SpecError("kvmfleet_ip_pools.{0}".format(self.name), None, "has {0}, {1} in use, {2} asked for".format(
                "1 address" if self.size == 1 else "{0} addresses".format(self.size), len(used), len(wanted)),
                "Delete VMs of network {0}, ask for fewer, or enlarge the ranges of the pool".format(self.network), "pool_exhausted")
        result: Dict[str, str] = {}
        rank = tie_break(wanted[0], self.name) % self.size if wanted else 0
        for name in wanted:
            while rank in used:
                rank = (rank + 1) % self.size
            used[rank] = None
            result[name] = self._at(rank)
        return result

    def check_address(self, option: str, address: str) -> None:
        """Raises SpecError where somebody asks for an address that is none of the pool's. Of the other family the pool says nothing."""
        bare = check_address(option, str(address).partition("/")[0].strip())
        if self.contains(bare) or (":" in bare) != (self.family == 6):
            return
        shown = ["{0}-{1}".format(*(netaddr.IPAddress(end, self.family) for end in interval)) for interval in self.intervals[:3]]
        raise SpecError(option, str(address), "is none of address pool {0}, from which network {1} has its addresses ({2}{3})".format(
            self.name, self.network, ", ".join(shown), ", ..." if len(self.intervals) > 3 else ""), "Use one of these, or none to get one", "address_outside")

    def check_group(self, option: str, group: Optional[str]) -> None:
        """Raises SpecError where the pool is reserved to groups and this is none of them."""
        check_allowed({"groups": self.groups}, option, "address pool {0}".format(self.name), group)


def read_pool(name: str, catalogs: Catalogs, network: Optional[str] = None) -> AddressPool:
    """An address pool out of the catalogs, checked. Raises SpecError naming the key.

    :param network: the network whose C(pool) this is; has to be the one that the pool says it is for, if it says
    """
    if not HAS_NETADDR:
        raise SpecError("kvmfleet_ip_pools.{0}".format(name), None, "needs the Python library netaddr on the control node", "Install it: pip install netaddr",
                        "missing_library")
    where = "kvmfleet_ip_pools.{0}".format(name)
    entry = catalogs.find("kvmfleet_ip_pools", "kvmfleet_networks.{0}.pool".format(network) if network else "kvmfleet_ip_pools", name)
    own = entry.get("network") or network
    if not own:
        raise _fault(where + ".network", None, "is missing", "Name the network of kvmfleet_networks that the addresses are for")
    if network and own != network:
        raise _fault(where + ".network", own, "is not the network {0}, which has this pool in kvmfleet_networks".format(network), "Make them agree")
    net = catalogs.find("kvmfleet_networks", where + ".network", own)
    cidrs = [netaddr.IPNetwork(str(cidr)) for cidr in cidrs_of(own, net)]
    if not cidrs:
        raise _fault(where + ".network", own, "has no cidr in kvmfleet_networks, so that the prefix length of its addresses is not known",
                     "Give kvmfleet_networks.{0}.cidr, such as 192.0.2.0/24".format(own))
    ranges = _ranges(where, entry, cidrs)
    family = ranges[0].version
    usable = netaddr.IPSet()
    for one in ranges:
        usable.update(one)
    return AddressPool(name, own, list(entry.get("groups") or []),
                       [(r.first, r.last) for r in (usable - _unusable(where, entry, own, net, cidrs, family)).iter_ipranges()], family,
                       [cidr for cidr in cidrs if cidr.version == family])


def _fault(option: str, value: Any, reason: str, remedy: str) -> SpecError:
    return SpecError(option, value, reason, remedy, "invalid_catalog")


def _address(option: str, whole: str, text: str) -> Any:
    try:
        return netaddr.IPAddress(text.strip(), flags=netaddr.INET_PTON)
    except (netaddr.AddrFormatError, ValueError):
        raise _fault(option, whole, "{0} is not an address".format(text.strip() or "an empty text"), _HOW) from None


def _range(option: str, text: str) -> Any:
    """One entry of C(ranges) or C(excluded). Raises SpecError."""
    if "/" in text:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError as exc:
            raise _fault(option, text, str(exc), _HOW) from None
        address = text.partition("/")[0].strip()
        if ipaddress.ip_address(address) != network.network_address:
            raise _fault(option, text, "is an address in {0}, not a network".format(network), "Write {0}, or {1} for the address".format(network, address))
        return netaddr.IPRange(*(netaddr.IPAddress(int(end), network.version) for end in (network[0], network[-1])))
    low, dash, high = text.partition("-")
    first = _address(option, text, low)
    last = _address(option, text, high) if dash else first
    if first.version != last.version:
        raise _fault(option, text, "begins with IPv{0} and ends with IPv{1}".format(first.version, last.version), "Write two ranges")
    if last < first:
        raise _fault(option, text, "ends before it begins", "Write {0}-{1}".format(last, first))
    return netaddr.IPRange(first, last)


def _ranges(where: str, entry: Mapping[str, Any], cidrs: Sequence[Any]) -> List[Any]:
    """The ranges of a pool: at least one, each inside a cidr of the network, of one family, none twice. Raises SpecError."""
    option = where + ".ranges"
    texts = entry.get("ranges") or []
    if not texts:
        raise _fault(option, None, "is empty", "Name the addresses that VMs may get. " + _HOW)
    known: List[Tuple[Any, str]] = []
    for text in texts:
        one = _range(option, text)
        first, last = (netaddr.IPAddress(end, one.version) for end in (one.first, one.last))
        if not any(first in cidr and last in cidr for cidr in cidrs):
            raise _fault(option, text, "is not within the network ({0})".format(", ".join(map(str, cidrs))), "Use a range inside it")
        if any(end.is_loopback() or end.is_multicast() or end.is_link_local() or int(end) == 0 for end in (first, last)):
            raise _fault(option, text, "has loopback, link-local, multicast or unspecified addresses", "Use addresses that a VM can have")
        for other, written in known:
            if other.version != one.version:
                raise _fault(option, text, "is IPv{0}, and {1} is IPv{2}; a pool gives each VM one address".format(one.version, written, other.version),
                             "Use ranges of one family")
            if one.first <= other.last and other.first <= one.last:
                raise _fault(option, text, "overlaps {0}".format(written), "Name each address once")
        known.append((one, text))
    return [one for one, text in known]


def _unusable(where: str, entry: Mapping[str, Any], network: str, net: Mapping[str, Any], cidrs: Sequence[Any], family: int) -> Any:
    """What of the ranges no VM may get. Raises SpecError."""
    out = netaddr.IPSet()
    for text in entry.get("excluded") or []:
        out.update(_range(where + ".excluded", text))
    for cidr in cidrs:
        if cidr.prefixlen < (31 if cidr.version == 4 else 127):
            # of IPv6 it is the routers' anycast address
            out.add(netaddr.IPAddress(cidr.first, cidr.version))
            if cidr.version == 4:
                out.add(netaddr.IPAddress(cidr.last, 4))
    if net.get("gateway"):
        option = "kvmfleet_networks.{0}.gateway".format(network)
        out.add(_address(option, net["gateway"], net["gateway"]))
    return out
