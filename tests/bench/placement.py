# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of placement: its quality against best fit, bounds and Ganeti's hail, its speed against hail and hspace, and how it grows.

usage: placement.py [--quick]
"""
from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import (
    Amount,
    HostCapacity,
    Pool,
    Request,
    Vm,
    how_many,
    place,
)
from ansible_collections.kvmfleet.core.tests.bench import cases
from ansible_collections.kvmfleet.core.tests.bench.pack_planner import GIB, PackPlanner, disks_of, host_of

TRACE = ROOT.parent / "shared" / "data" / "azure2017_dev.csv.gz"
HAIL = "/usr/lib/ganeti/iallocators/hail"
HSPACE = "/usr/bin/hspace"
HOST = (64, 508, 4000)       # vcpus, GiB and GiB of disk of a host in the speed cases; ratio of vcpus 2
NEW = (4, 30, 80)
Figure = Dict[str, Any]
Sizes = Tuple[int, int, int]


# -- quality ---------------------------------------------------------------------------------------------------------------------------

def trace(folder: Path) -> Tuple[Path, str]:
    """The trace, or one made up with the same shapes, rates and mean lifetimes."""
    if TRACE.exists():
        return TRACE, "trace of 2017"
    rnd, path = random.Random(1), folder / "trace.csv.gz"
    # vcpus, memory, arrivals, of these without an end, mean lifetime of the others in seconds
    shapes = [(1, 1.75, 156437, 5067, 8569), (2, 3.5, 48008, 4097, 7719), (4, 7, 25700, 2847, 7290), (8, 14, 23315, 1014, 5672),
              (1, 0.75, 4108, 302, 9642), (8, 56, 1427, 907, 12086), (4, 28, 49, 37, 10643), (2, 14, 49, 30, 7450), (16, 112, 9, 1, 4155)]
    rows = []
    for vcpus, memory, count, staying, mean in shapes:
        for i in range(count):
            # most live for minutes, few for days: log-normal around the mean
            life = "" if i < staying else "{0:.0f}".format(rnd.lognormvariate(math.log(mean) - 2, 2))
            rows.append((rnd.uniform(0, 302400), vcpus, memory, life))
    with gzip.open(path, "wt") as out:
        writer = csv.writer(out)
        writer.writerow(["arrival_s", "vcpus", "memory_gib", "lifetime_s"])
        writer.writerows(sorted(rows))
    return path, "made-up trace"


def churn(folder: Path) -> List[Figure]:
    """GiB refused over 3.5 days by pack, against best fit."""
    path, what = trace(folder)
    hosts = cases.churn_hosts()
    ours = cases.replay(hosts, cases.churn_events(path, 0.5), PackPlanner(hosts))[1]
    best_fit = cases.replay(hosts, cases.churn_events(path, 0.5), cases.best_fit_absolute)[1]
    peer = "{0}: pack refuses {1:.0f} GiB, best fit {2:.0f} GiB".format(what, ours, best_fit)
    return [figure("churn_refused_gib_vs_best_fit", ours / best_fit, "<= 0.9", peer)]


def first_refusal(seed: int) -> Tuple[int, List[Tuple[float, float, float]], List[Sizes]]:
    """How many VMs of a fill pack places before it refuses one."""
    hosts, vms = cases.mixed_hosts(40, seed), cases.fill(seed)
    free = [list(there) for there in hosts]
    planner = PackPlanner(hosts, [flavor[:3] for flavor in cases.FLAVORS])
    for number, vm in enumerate(vms):
        host = planner(free, hosts, vm)
        if host is None:
            return number, hosts, vms
        free[host] = [have - need for have, need in zip(free[host], vm)]
    return len(vms), hosts, vms


def fills(quick: bool, peers: Peers) -> List[Figure]:
    """VMs before the first refusal, against one big host and against hail."""
    shares, against = [], []
    for seed in range(1, 31):
        ours, hosts, vms = first_refusal(seed)
        bound = cases.fluid_bound(hosts, vms)
        shares.append(ours / bound)
        if peers.present and seed <= (1 if quick else 5):
            against.append(ours / peers.fill(hosts, vms[:bound]))
    found = [figure("fill_first_refusal_vs_fluid_bound", statistics.mean(shares), ">= 0.95", "one big host, mean of 30 fills")]
    if against:
        found.append(figure("fill_vs_hail", statistics.mean(against), ">= 1.0", "hail, {0} fills".format(len(against))))
    return found


def lp_bound(capacity: Sequence[float], demand: Sequence[int]) -> float:
    """The configuration LP: fewest hosts of one type if patterns could be used in part. Disk is left out, which only lowers the bound."""
    import numpy
    from scipy.optimize import linprog

    flavors, (wide, high, _disk) = [flavor[:3] for flavor in cases.FLAVORS], [int(amount) for amount in capacity]
    columns = [[min(wide // flavor[0], high // flavor[1]) if i == j else 0 for j in range(len(flavors))] for i, flavor in enumerate(flavors)]
    while True:
        solved = linprog(numpy.ones(len(columns)), A_ub=-numpy.array(columns).T, b_ub=-numpy.array(demand), method="highs")
        worth = -solved.ineqlin.marginals
        best = numpy.zeros((wide + 1, high + 1))
        taken = numpy.full((wide + 1, high + 1), -1)
        for across in range(1, wide + 1):
            best[across], taken[across] = best[across - 1], -2
            for item, (vcpus, memory, _gib) in enumerate(flavors):
                if vcpus <= across and memory <= high:
                    value = best[across - vcpus, :high + 1 - memory] + worth[item]
                    better = value > best[across, memory:] + 1e-12
                    best[across, memory:][better] = value[better]
                    taken[across, memory:][better] = item
        if best[wide, high] <= 1 + 1e-7:
            return float(solved.fun)
        pattern, across, up = [0] * len(flavors), wide, high
        while across > 0 and taken[across, up] != -1:
            item = int(taken[across, up])
            if item == -2:
                across -= 1
                continue
            pattern[item] += 1
            across, up = across - flavors[item][0], up - flavors[item][1]
        columns.append(pattern)


def batches(quick: bool) -> List[Figure]:
    """Hosts that a packed batch takes, against the configuration LP; one host more than the bound counts as the bound itself."""
    worst, told = 0.0, []
    for machine, _weight in cases.MACHINES[:2] if quick else cases.MACHINES:
        capacity = (machine[0] * 1.5, machine[1] - 4, machine[2])
        for count in (1000, 5000):
            rnd = random.Random(count)
            vms = rnd.choices(cases.FLAVORS, [flavor[3] for flavor in cases.FLAVORS], k=count)
            bound = lp_bound(capacity, [vms.count(flavor) for flavor in cases.FLAVORS])
            hosts = [host_of("h{0:04}".format(i), capacity) for i in range(int(bound * 1.15) + 2)]
            plan = place([sized("v{0}".format(i), vm[:3]) for i, vm in enumerate(vms)], hosts, "pack")
            used = len(set(plan.hosts.values())) if plan.ok else math.inf
            worst = max(worst, 1.0 if used <= bound + 1 else used / bound)
            told.append("{0}/{1:.1f}".format(used, bound))
    return [figure("batch_hosts_vs_lp_bound", worst, "<= 1.01", "configuration LP; hosts/bound " + ", ".join(told))]


# -- speed -----------------------------------------------------------------------------------------------------------------------------

def figure(name: str, value: float, bound: str, peer: str, unit: str = "ratio") -> Figure:
    """One figure of the results."""
    return {"name": name, "value": round(value, 6), "unit": unit, "bound": bound, "peer": peer}


def sized(name: str, vm: Sizes) -> Request:
    """A request of whole vcpus and GiB."""
    return Request(name, vm[0] * 1000, vm[1] * 1024, disks_of(vm[2]))


def loaded(hosts: int, vms: int) -> List[List[Sizes]]:
    """VMs of an evenly loaded fleet, by host, with room left for a host that fails."""
    rnd, free = random.Random(1), [[HOST[0] * 2, HOST[1], HOST[2]] for _host in range(hosts)]
    placed: List[List[Sizes]] = [[] for _host in range(hosts)]
    turn, count = 0, 0
    while count < vms:
        vm = rnd.choices(cases.FLAVORS, [flavor[3] for flavor in cases.FLAVORS])[0][:3]
        room = free[turn % hosts]
        if room[0] >= vm[0] + 8 and room[1] >= vm[1] + 60:
            placed[turn % hosts].append(vm)
            free[turn % hosts] = [have - need for have, need in zip(room, vm)]
            count += 1
        turn += 1
    return placed


def fleet(placed: Sequence[Sequence[Sizes]]) -> List[HostCapacity]:
    """The same as capacities."""
    return [HostCapacity(
        "node{0}".format(i), Amount(HOST[0] * 1000, ratio=2, allocated=sum(vm[0] for vm in vms) * 1000),
        Amount(HOST[1] * 1024, allocated=sum(vm[1] for vm in vms) * 1024), {"p": Pool(HOST[2] * GIB, allocated=sum(vm[2] for vm in vms) * GIB)},
        storage_classes={"default": "p"},
        vms=tuple(Vm("inst{0}-{1}".format(i, j), vm[0] * 1000, vm[1] * 1024, disks_of(vm[2])) for j, vm in enumerate(vms)))
        for i, vms in enumerate(placed)]


def median_time(call: Callable[[], Any], runs: int) -> float:
    """Seconds, the median of several runs."""
    times = []
    for _run in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Peers:
    """Ganeti's tools on the same fleets, told about them in their text format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.present = os.path.exists(HAIL) and os.path.exists(HSPACE)

    def _cluster(self, hosts: Sequence[Sizes], placed: Sequence[Sequence[Sizes]], ratio: float) -> str:
        lines = ["default|uuid-g1|preferred||", ""]
        for i, (host, vms) in enumerate(zip(hosts, placed)):
            memory, disk = host[1] - sum(vm[1] for vm in vms), host[2] - sum(vm[2] for vm in vms)
            lines.append("|".join(str(column) for column in (
                "node{0}".format(i), host[1] * 1024, 0, memory * 1024, host[2] * 1024, disk * 1024, host[0], "N" if i else "M", "uuid-g1", 1, "",
                "N", 0, 0, 1.0)))
        lines.append("")
        for i, vms in enumerate(placed):
            lines += ["|".join(str(column) for column in (
                "inst{0}-{1}".format(i, j), vm[1] * 1024, vm[2] * 1024, vm[0], "running", "Y", "node{0}".format(i), "", "plain", "", 1, "-"))
                for j, vm in enumerate(vms)]
        policy = "4096,2,20480,1,1,1|128,1,1024,1,1,1;1048576,256,8388608,16,8,12|plain|{0}|32.0".format(ratio)
        path = self.folder / "cluster.data"
        path.write_text("\n".join(lines + ["", "", "|" + policy, "default|" + policy]) + "\n", encoding="ascii")
        return str(path)

    @staticmethod
    def _instance(name: str, vm: Sizes) -> Dict[str, Any]:
        return {"type": "allocate", "name": name, "memory": vm[1] * 1024, "vcpus": vm[0], "disk_space_total": vm[2] * 1024, "nics": [], "tags": [],
                "disks": [{"size": vm[2] * 1024, "mode": "w", "spindles": 1}], "disk_template": "plain", "required_nodes": 1, "os": "x",
                "spindle_use": 1, "hypervisor": "kvm"}

    def _hail(self, cluster: str, request: Dict[str, Any], *options: str) -> Dict[str, Any]:
        path = self.folder / "request.json"
        path.write_text(json.dumps({"version": 2, "cluster_name": "c", "cluster_tags": [], "enabled_hypervisors": ["kvm"], "ipolicy": {},
                                    "nodegroups": {}, "nodes": {}, "instances": {}, "request": request}), encoding="ascii")
        done = subprocess.run([HAIL, "-t", cluster, *options, str(path)], check=True, capture_output=True, text=True)
        answer: Dict[str, Any] = json.loads(done.stdout)
        return answer

    def one(self, placed: Sequence[Sequence[Sizes]], reserve: bool) -> Callable[[], None]:
        """A run of hail that places one VM."""
        cluster = self._cluster([HOST] * len(placed), placed, 2.0)

        def run() -> None:
            answer = self._hail(cluster, self._instance("new", NEW), *([] if reserve else ["--no-capacity-checks"]))
            if not answer["success"]:
                raise RuntimeError("hail placed nothing: " + answer["info"])
        return run

    def many(self, placed: Sequence[Sequence[Sizes]], vms: Sequence[Sizes]) -> Callable[[], None]:
        """A run of hail that places a batch."""
        cluster = self._cluster([HOST] * len(placed), placed, 2.0)
        request = {"type": "multi-allocate", "instances": [self._instance("n{0}".format(i), vm) for i, vm in enumerate(vms)]}

        def run() -> None:
            answer = self._hail(cluster, request, "--no-capacity-checks")
            if not answer["success"] or answer["result"][1]:
                raise RuntimeError("hail placed only a part: " + answer["info"])
        return run

    def fill(self, hosts: Sequence[Tuple[float, float, float]], vms: Sequence[Sizes]) -> int:
        """How many VMs of the sequence hail places before it refuses one."""
        cluster = self._cluster([(int(vcpus / 1.5), int(memory), int(disk)) for vcpus, memory, disk in hosts], [[] for _host in hosts], 1.5)
        instances = [self._instance("n{0}".format(i), vm) for i, vm in enumerate(vms)]
        # it answers for the whole batch, so the longest beginning that it takes is looked for by halving
        low, high = 0, len(vms)
        while low < high:
            middle = (low + high + 1) // 2
            answer = self._hail(cluster, {"type": "multi-allocate", "instances": instances[:middle]}, "--no-capacity-checks")
            taken = answer["success"] and not answer["result"][1]
            low, high = (middle, high) if taken else (low, middle - 1)
        return low

    def space(self, placed: Sequence[Sequence[Sizes]]) -> Callable[[], None]:
        """A run of hspace that counts how many more VMs fit."""
        cluster = self._cluster([HOST] * len(placed), placed, 2.0)
        command = [HSPACE, "-t", cluster, "--standard-alloc", "{2}g,{1}g,{0}".format(*NEW), "--machine-readable=yes", "--no-capacity-checks"]

        def run() -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return run


def speed(quick: bool, peers: Peers) -> List[Figure]:
    """Decisions against whole runs of Ganeti's tools, and growth with the fleet."""
    runs, small, large = (5 if quick else 15), loaded(50, 820), loaded(200, 3400)
    fleet_50, fleet_200, one = fleet(small), fleet(large), sized("new", NEW)
    rnd = random.Random(5)
    batch = rnd.choices([flavor[:3] for flavor in cases.FLAVORS], [flavor[3] for flavor in cases.FLAVORS], k=1000)
    asked = [sized("n{0}".format(i), vm) for i, vm in enumerate(batch)]
    decision = median_time(lambda: need(place([one], fleet_200)), runs * 3)
    reserve_50 = median_time(lambda: need(place([one], fleet_50, reserve_failures=1)), runs)
    reserve_200 = median_time(lambda: need(place([one], fleet_200, reserve_failures=1)), runs)
    room_50 = median_time(lambda: how_many([one], fleet_50), runs * 3)
    room_200 = median_time(lambda: how_many([one], fleet_200), runs * 3)
    together = median_time(lambda: need(place(asked, fleet_200)), 3)
    empty = {count: [host_of("h{0:04}".format(i), (HOST[0] * 2, HOST[1], HOST[2])) for i in range(count)] for count in (250, 1000)}
    grown = median_time(lambda: need(place(asked, empty[1000])), 5) / median_time(lambda: need(place(asked, empty[250])), 5)
    found = [figure("n1_growth_50_to_200", reserve_200 / reserve_50, "<= 8", "itself on 50 hosts"),
             figure("how_many_growth_50_to_200", room_200 / room_50, "<= 8", "itself on 50 hosts"),
             figure("batch_growth", grown, "<= 4", "1,000 VMs on 1,000 hosts, itself on 250")]
    if not peers.present:
        return found
    times = 1 if quick else 3
    part = 50 if quick else 1000    # hail takes equally long for each VM of a batch, about 0.15 s
    hail_batch = median_time(peers.many(large, batch[:part]), 1) * 1000 / part
    return found + [
        figure("decision_200_vs_hail", decision / median_time(peers.one(large, False), times * 2 + 1), "<= 0.02", "hail, 200 hosts, 3,400 VMs"),
        figure("batch_1000_on_200_vs_hail", together / hail_batch, "<= 0.02",
               "hail multi-allocate" + (", 20 x a batch of 50" if part < 1000 else "")),
        figure("n1_50_vs_hail", reserve_50 / median_time(peers.one(small, True), times), "<= 0.02", "hail, 50 hosts, 820 VMs, N+1"),
        figure("how_many_50_vs_hspace", room_50 / median_time(peers.space(small), times), "<= 0.02", "hspace, 50 hosts, no N+1 in either")]


def need(plan: Any) -> None:
    """A measured decision has to be one."""
    if not plan.ok:
        raise RuntimeError(plan.message)


def figures(quick: bool = False) -> List[Figure]:
    """All figures of placement; C(quick) takes fewer repetitions and shorter runs of the peers."""
    with tempfile.TemporaryDirectory(prefix="kfbench-") as name:
        folder = Path(name)
        peers = Peers(folder)
        if not peers.present:
            print("placement: no ganeti-htools, so no figures against hail and hspace", file=sys.stderr)
        return churn(folder) + fills(quick, peers) + batches(quick) + speed(quick, peers)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    for one in figures(parser.parse_args(argv).quick):
        print("{name:36} {value:9.4f}  {bound:8}  {peer}".format(**one))
    return 0


if __name__ == "__main__":
    sys.exit(main())
