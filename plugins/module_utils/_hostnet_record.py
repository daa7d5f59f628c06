# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that says which networks of a host are ours, and of which devices each is made: what may be removed once it is declared no more."""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Dict, List, Mapping, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._hostnet_model import HEADER, File, Network, Plan

RECORD = "/etc/kvmfleet/networks.json"


@dataclass(frozen=True)
class Recorded:
    """A network that an earlier run made."""

    name: str
    bridge: str
    switch: str = ""
    devices: Tuple[str, ...] = ()       # of the kernel, those that go with the network
    ports: Tuple[str, ...] = ()         # of Open vSwitch
    links: Tuple[str, ...] = ()         # of the host, given back when the network goes
    digest: str = ""                    # of all that was declared


def recorded(network: Network, plan: Plan, ports: Mapping[str, List[str]]) -> Recorded:
    """What is to be known of a network later. C(ports) are those that it has in Open vSwitch, by network."""
    made = tuple(d.name for d in plan.devices if d.network is not None and d.network.name == network.name and d.ours and d.kind not in ("link", "internal"))
    return Recorded(network.name, network.bridge, network.switch, made, tuple(sorted(ports.get(network.name, ()))), network.links,
                    hashlib.sha256(repr(network).encode()).hexdigest()[:16])


def render(plan: Plan, ports: Mapping[str, List[str]]) -> Dict[str, File]:
    """The file; nothing where the plan has no network."""
    if not plan.networks:
        return {}
    entries = [recorded(network, plan, ports) for network in plan.networks]
    data = {"made_by": HEADER, "networks": {e.name: {key: value for key, value in asdict(e).items() if key != "name"} for e in entries}}
    return {RECORD: (0o644, json.dumps(data, indent=2, sort_keys=True) + "\n")}


def read(files: Mapping[str, str]) -> Dict[str, Recorded]:
    """The networks that are ours, by name; none where the file is not there or cannot be read."""
    try:
        data = json.loads(files.get(RECORD, "{}"))
        return {str(name): Recorded(str(name), str(item["bridge"]), str(item["switch"]), tuple(item["devices"]), tuple(item["ports"]),
                                    tuple(item["links"]), str(item["digest"]))
                for name, item in data.get("networks", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
