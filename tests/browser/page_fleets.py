# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets that are made up, in the shape in which the hosts tell of themselves, and their pages."""
from __future__ import annotations

import random
import uuid

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_page, _page_html
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_report import Fleet, compose
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import read

TIME = "2026-11-29T16:30:00Z"
FLAVORS = {"small": (1, 2, 20), "medium": (2, 4, 40), "large": (4, 16, 80), "huge": (16, 64, 200)}
CATALOGS = {
    "kvmfleet_flavors": {name: {"vcpus": vcpus, "memory": "{0}GiB".format(memory), "disk": "{0}GiB".format(disk)}
                         for name, (vcpus, memory, disk) in FLAVORS.items()},
    "kvmfleet_groups": {"shop": {"quota": {"vms": 40, "vcpus": 100, "memory": "400GiB"}}, "lab": {}}}
ROLES = ("web", "db", "cache", "mail", "build", "queue", "search", "proxy")
UNREACHABLE = {"unreachable": True, "msg": "Failed to connect to the host via ssh: connect to host 10.20.0.9 port 22: No route to host"}


def vm(name, flavor="small", *, phase="ready", stopped=False, managed=True, group=None, pool="default", **more):
    """A VM as host_capacity tells it."""
    vcpus, memory, disk = FLAVORS[flavor]
    told = {"name": name, "uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "managed": managed, "phase": phase if managed else None, "stopped": stopped,
            "vcpus_milli": vcpus * 1000, "memory_mib": memory * 1024 + 120, "limit_mib": memory * 1024, "vcpus": vcpus, "macs": [], "addresses": [],
            "disks": [{"name": "root", "pool": pool, "bytes": disk * GIB}] if managed else [], "labels": {}, "networks": ["lan"], "arch": "x86_64",
            "group": group, "namespace": "default" if group else None, "set": None, "index": None, "image": "debian:12" if managed else None,
            "flavor": flavor if managed else None, "ticket": None}
    return dict(told, **more)


def host(vms, vcpus=32, memory_gib=128, pools=(("default", 2048),), reserved=(2, 4), ratio=2.0, images_gib=30):
    """What a host with these VMs says of itself."""
    def told(suffix, total, kept, ratio, allocated, used):
        return {key + suffix: value for key, value in (("total", total), ("reserved", kept), ("allocated", allocated), ("used", used), (
            "available", int((total - kept) * ratio) - allocated))} | {"ratio": ratio}
    running = [one for one in vms if not one["stopped"]]
    states = {name: told("_bytes", size * GIB, 0, 1.0, images_gib * GIB + sum(disk["bytes"] for one in vms for disk in one["disks"] if disk["pool"] == name),
                         images_gib * GIB + sum(disk["bytes"] // 3 for one in vms for disk in one["disks"] if disk["pool"] == name)) for name, size in pools}
    return {"vcpus": told("", vcpus, reserved[0], ratio, sum(one["vcpus_milli"] for one in vms) // 1000, sum(one["vcpus_milli"] for one in running) // 1000),
            "memory": told("_mib", memory_gib * 1024, reserved[1] * 1024, 1.0, sum(one["memory_mib"] for one in vms),
                           sum(one["memory_mib"] for one in running)),
            "pools": {name: dict(pool, active=True, free_bytes=pool["total_bytes"] - pool["used_bytes"]) for name, pool in states.items()},
            "vms": list(vms), "hostname": "",
            "domains": {"defined": len(vms), "running": len(running), "ours": len(vms), "pending": 0}, "networks": [{"name": "lan", "active": True}],
            "virt_types": ["kvm"], "archs": ["x86_64"], "libvirt_version": "9.0.0", "qemu_version": "7.2.0"}


def info(vms):
    """What vm_info says of VMs."""
    def told(one):
        state = one.get("state") or (one["phase"] if one["phase"] not in (None, "ready") else "stopped" if one["stopped"] else "running")
        address = "10.20.{0}.{1}".format(*uuid.UUID(one["uuid"]).bytes[:2])
        return {"uuid": one["uuid"], "name": one["name"], "state": state, "vcpus": one["vcpus"], "memory_mib": one["limit_mib"], "description": "",
                "addresses": [{"address": address, "mac": ""}] if state == "running" else []}
    return {"vms": [told(one) for one in vms]}


def page(results, places, infos=None, title="Fleet", last_run=None, catalogs=None, time=TIME, **given):
    """The HTML of a fleet's page.

    :param results: host -> what it said
    :param places: host -> its variables
    :param given: variables of the entry point
    """
    hosts = [read_host(name, places.get(name, {})) for name in results]
    fleet = Fleet(hosts, results, Catalogs(CATALOGS if catalogs is None else catalogs), read("fleet_page", given))
    return _page_html.render(_fleet_page.page_of(fleet, compose("capacity", fleet), infos or {}, title, last_run), time)


def example():
    """A small fleet of which the docs show a picture: two zones, five hosts, of which one is dead; the arguments of L(page)."""
    vms = {
        "kvm1": [vm("web-1", "medium", group="shop"), vm("web-2", "medium", group="shop"), vm("db-1", "huge", group="shop", pool="ssd"), vm("build-1", "large"),
                 vm("cache-1", "large"), vm("old-web", "medium", stopped=True)],
        "kvm2": [vm("web-3", "medium", group="shop", state="paused"), vm("db-2", "large", group="shop"), vm("mail", "large"),
                 vm("queue-1", "large", phase="building"), vm("legacy-erp", "large", managed=False)],
        "kvm3": [vm("web-4", "medium"), vm("search-1", "huge"), vm("batch-7", "large", phase="failed", stopped=True), vm("proxy", "small")],
        "kvm5": [vm("dev-{0}".format(number), "small" if number % 3 else "medium", stopped=number % 4 == 0) for number in range(1, 10)]}
    results = {name: host(own, pools=(("default", 1024), ("ssd", 512)) if name == "kvm1" else (("default", 1024),)) for name, own in vms.items()}
    results["kvm4"] = UNREACHABLE
    places = {name: {"kvm_region": "berlin", "kvm_zone": "hall-a" if name in ("kvm1", "kvm2", "kvm3") else "hall-b"} for name in results}
    places["kvm5"]["kvm_schedulable"] = False
    return {"results": results, "places": places, "infos": {name: info(own) for name, own in vms.items()}}


def troubled():
    """Two regions with a zone of one name, hosts of which more is given out than there is, full pools, and 300 small VMs on one host."""
    vms = {
        "kvm1": [vm("tiny-{0:03}".format(number), stopped=number % 11 == 0, phase="failed" if number == 120 else "ready") for number in range(300)],
        "kvm2": [vm("db-{0}".format(number), "huge", state="paused" if number == 1 else None) for number in range(5)]
        + [vm("web-{0}".format(number), stopped=True) for number in range(6)],
        "kvm3": [vm("mail", "large", state="crashed"), vm("shop", "small")], "kvm4": [vm("log", "medium")]}
    sizes = {"kvm1": {"vcpus": 128, "memory_gib": 1024, "pools": (("default", 16384),), "ratio": 4.0},
             "kvm2": {"vcpus": 32, "pools": (("default", 700), ("ssd", 100))},
             "kvm3": {}, "kvm4": {"pools": (("default", 1024),)}}
    results = {name: host(own, **sizes[name]) for name, own in vms.items()}
    results["kvm4"]["pools"]["default"]["free_bytes"] = GIB
    places = {name: {"kvm_region": region, "kvm_zone": zone} for name, region, zone in (
        ("kvm1", "berlin", "a"), ("kvm2", "munich", "a"), ("kvm3", "munich", "b"), ("kvm4", "munich", "b"))}
    return {"results": results, "places": places, "infos": {name: info(own) for name, own in vms.items()}}


def large(hosts=100, vms=3000, seed=1):
    """A large fleet; the arguments of L(page)."""
    rnd = random.Random(seed)
    made = {"kvm{0}".format(number): [] for number in range(1, hosts + 1)}
    names = list(made)
    for number in range(vms):
        name = names[number % hosts] if number % 10 else rnd.choice(names)
        dice = rnd.random()
        made[name].append(vm(
            "{0}-{1}".format(rnd.choice(ROLES), number), rnd.choices(list(FLAVORS)[:3], (6, 3, 1))[0], stopped=dice < 0.1, managed=dice < 0.97,
            group=rnd.choice(("shop", "lab", None)), phase=rnd.choice(("building", "failed")) if 0.1 < dice < 0.11 else "ready",
            labels={"tier": rnd.choice(("front", "back")), "team": rnd.choice(("red", "blue", "green"))}))
    results = {name: host(own, vcpus=rnd.choice((32, 48, 64)), memory_gib=rnd.choice((128, 192, 256)), pools=(("default", 4096), ("ssd", 1024)))
               for name, own in made.items()}
    infos = {name: info(own) for name, own in made.items()}
    for name in names[40:42]:
        results[name], infos[name] = UNREACHABLE, {}
    places = {name: {"kvm_region": ("eu", "eu", "us")[number % 3], "kvm_zone": ("eu-west", "eu-north", "us-east")[number % 3]}
              for number, name in enumerate(names)}
    return {"results": results, "places": places, "infos": infos}


# What create_vm leaves of a run that was refused
REFUSED = {"verb": "create", "time": "2026-11-29T16:12:44Z", "failed": True, "msg": "web-9 fits on no host: no host has 64 GiB of memory left", "placement": {
    "ok": False, "vms": [{"name": name, "refused": [
        {"host": "kvm1", "code": "no_memory", "reason": "kvm1 has 27.5 GiB of memory left, 64.1 GiB are needed"},
        {"host": "kvm2", "code": "no_memory", "reason": "kvm2 has 59.4 GiB of memory left, 64.1 GiB are needed"},
        {"host": "kvm5", "code": "unschedulable", "reason": "kvm5 takes no new VMs (schedulable is false)"}]} for name in ("web-9", "web-10")]}}
