# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a new definition can be changed in a running guest, and doing it with a deadline."""
from __future__ import annotations

import copy
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils import _domain_xml
from ansible_collections.kvmfleet.core.plugins.module_utils._domain_xml import ObservedVm, observe, to_string

try:
    import libvirt
except ImportError:  # reported by _connection.require_libvirt
    pass

_HOT_BUSES = ("virtio", "scsi", "usb")
_MEDIA = ("cdrom", "floppy")
# A difference in one of these cannot be seen later, so that it has to be remembered.
REMEMBERED = ("cpu",)


@dataclass
class Operation:
    """One change of the running guest. C(verb) is set, attach, detach or update; C(option) is what the user calls it.

    C(key) is what the running definition calls the device.
    """

    option: str
    verb: str
    value: Any = None
    key: str = ""


@dataclass
class Intent:
    """What a run is about, where two definitions alone do not tell.

    :param purge: C(disks), C(nics): kinds of devices that may be taken away though they are not ours
    :param changed: options that this run changes in the definition
    :param hopeless: options that wait for the restart of the running guest, found out by an earlier run
    """

    purge: Collection[str] = ()
    changed: Collection[str] = ()
    hopeless: Collection[str] = ()

    def knows(self, option: str) -> bool:
        """Whether it is known of an option that the running guest lacks it."""
        return option in self.changed or option in self.hopeless


def pending(live: ObservedVm, persistent: ObservedVm, intent: Intent) -> Dict[str, Tuple[Any, Any]]:
    """Option -> (live, persistent) of what the running guest still lacks of its definition.

    A device that is not ours, and was attached to the running guest or to the definition only, is somebody's intention and no difference, unless it is to
    be purged. libvirt expands the CPU model of a running guest, and a guest that boots has its maximum of memory until it has a balloon driver: in both,
    a difference only counts where it is known to be one.
    """
    live = _domain_xml.aligned(live, persistent)
    found = _domain_xml.differences(live, persistent)
    for option in ("metadata", "description", "graphics.port"):
        found.pop(option, None)
    if not intent.knows("cpu"):
        found.pop("cpu", None)
    if live.memory_mib == live.max_memory_mib and not intent.knows("memory_mib"):
        found.pop("memory_mib", None)
    if "topology" in found and persistent.topology is None:
        found.pop("topology")
    for option in [o for o in found if "[" in o]:
        old, new = found[option]
        kind, key = _split(option)
        devices = [d for d in (getattr(live, kind).get(key), getattr(persistent, kind).get(key)) if d is not None]
        one_sided = len(devices) == 1 and not devices[0].ours and not (new is None and kind in intent.purge)
        # The network's own MTU appears in the live XML only.
        only_mtu = kind == "nics" and old and new and "mtu" not in new and {k: v for k, v in old.items() if k != "mtu"} == new
        if one_sided or only_mtu:
            found.pop(option)
    return found


def _split(option: str) -> Tuple[str, str]:
    kind, key = option[:-1].split("[", 1)
    return kind, key


def _device(root: ET.Element, kind: str, key: str) -> ET.Element:
    for device in root.findall("devices/" + ("disk" if kind == "disks" else "interface")):
        if _domain_xml.observe_device(device).key == key:
            return device
    raise KeyError(key)


def _hot_pluggable(item: Dict[str, Any]) -> bool:
    return item.get("device", "disk") not in _MEDIA and item.get("bus", "virtio") in _HOT_BUSES


def operations(live_root: ET.Element, wanted_root: ET.Element, intent: Intent) -> Tuple[List[Operation], List[str]]:
    """What to do to the running guest, and the options that have to wait for its restart. What it did not follow before is not tried again."""
    live, wanted = observe(live_root), observe(wanted_root)
    todo: List[Operation] = []
    later: List[str] = []
    for option, (old, new) in pending(live, wanted, intent).items():
        operation: Optional[Operation] = None
        if option in intent.hopeless and option not in intent.changed:
            pass
        elif option == "vcpus" and new <= live.max_vcpus:
            operation = Operation(option, "set", new)
        elif option == "memory_mib" and new <= live.max_memory_mib:
            operation = Operation(option, "set", new)
        elif "[" in option:
            kind, key = _split(option)
            found = getattr(_domain_xml.aligned(live, wanted), kind).get(key)
            operation = _device_operation(option, old, new, live_root, wanted_root, found.key if found else "")
        if operation is None:
            later.append(option)
        else:
            todo.append(operation)
    return todo, later


def _device_operation(option: str, old: Optional[Dict[str, Any]], new: Optional[Dict[str, Any]], live_root: ET.Element, wanted_root: ET.Element,
                      live_key: str) -> Optional[Operation]:
    kind, key = _split(option)
    if old is None and new is not None:
        return Operation(option, "attach", _device(wanted_root, kind, key)) if _hot_pluggable(new) else None
    if new is None and old is not None:
        return Operation(option, "detach", _device(live_root, kind, live_key), live_key) if _hot_pluggable(old) else None
    changed = {k for k in set(old or {}) | set(new or {}) if (old or {}).get(k) != (new or {}).get(k)}
    if option.startswith("disks["):
        if (new or {}).get("device") not in _MEDIA or not changed <= {"path", "kind", "format", "pool", "volume"}:
            return None
        device = copy.deepcopy(_device(live_root, kind, live_key))
        for tag in ("source", "driver", "backingStore"):
            for element in device.findall(tag):
                device.remove(element)
        wanted = _device(wanted_root, kind, key)
        device.set("type", wanted.get("type", "file"))
        device.extend(copy.deepcopy(e) for tag in ("driver", "source") for e in wanted.findall(tag))
        return Operation(option, "update", device)
    if not changed <= {"link", "source", "filter"}:
        return None
    device = copy.deepcopy(_device(live_root, kind, live_key))
    wanted = _device(wanted_root, kind, key)
    for tag in ("source", "link", "filterref"):
        for element in device.findall(tag):
            device.remove(element)
        device.extend(copy.deepcopy(e) for e in wanted.findall(tag))
    return Operation(option, "update", device)


def apply(domain: libvirt.virDomain, operation: Operation, timeout_s: float) -> Optional[str]:
    """Carry out one operation; returns None, or why the guest did not take it (then it waits for the restart).

    libvirt returns before the guest has let go of a disk, a NIC, a vcpu or memory: the live definition is asked until the deadline.
    """
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    try:
        if operation.option == "vcpus":
            domain.setVcpusFlags(operation.value, live)
        elif operation.option == "memory_mib":
            domain.setMemoryFlags(operation.value * 1024, live)
        elif operation.verb == "attach":
            domain.attachDeviceFlags(to_string(operation.value), live)
        elif operation.verb == "detach":
            domain.detachDeviceFlags(to_string(operation.value), live)
        else:
            domain.updateDeviceFlags(to_string(operation.value), live)
    except libvirt.libvirtError as exc:
        return str(exc)
    deadline = time.monotonic() + timeout_s
    while not _arrived(domain, operation):
        if time.monotonic() >= deadline:
            return "the guest has not followed within {0:g} s".format(timeout_s)
        time.sleep(0.05)
    return None


def _arrived(domain: libvirt.virDomain, operation: Operation) -> bool:
    root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    if operation.option == "vcpus":
        return observe(root).vcpus == operation.value
    if operation.option == "memory_mib":
        return observe(root).memory_mib == operation.value
    if operation.verb == "detach":
        try:
            _device(root, _split(operation.option)[0], operation.key)
        except KeyError:
            return True
        return False
    return True
