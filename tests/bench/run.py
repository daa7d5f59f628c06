# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure every figure, print a table, write .bench/results.json: a list of {"name", "value", "unit", "bound", "peer"}.

usage: run.py [--only PART] [--runs N]
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".ansible" / "collections"), str(Path(__file__).resolve().parent)]

from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import table  # noqa: E402

Figure = Dict[str, Any]


def single_host(runs: int) -> List[Figure]:
    """Creating, deleting, listing on one host, against bare libvirt, four pings and community.libvirt."""
    import single_host as part
    return part.figures(runs)


def placement(runs: int) -> List[Figure]:
    """Quality and speed of placement."""
    import placement as part
    return part.figures(quick=runs < 3)


def fleet(runs: int) -> List[Figure]:
    """The inventory of twenty hosts and creating over three, against community.libvirt and bare libvirt."""
    import fleet as part
    return part.figures(runs)


def page(runs: int) -> List[Figure]:
    """The fleet page of 100 hosts and 3,000 VMs in a browser."""
    import page as part
    return part.figures(runs)


PARTS: Dict[str, Callable[[int], List[Figure]]] = {"single_host": single_host, "placement": placement, "fleet": fleet, "page": page}


def met(figure: Figure) -> bool:
    """Whether a figure keeps its bound: C(<= 1.5) or C(>= 8)."""
    sign, number = str(figure["bound"]).split()
    return figure["value"] <= float(number) if sign == "<=" else figure["value"] >= float(number)


def main() -> int:
    """Entry point; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(PARTS), action="append")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    results: List[Figure] = []
    for name in options.only or PARTS:
        results.extend(PARTS[name](options.runs))
    out = ROOT / ".bench"
    out.mkdir(exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    rows = [[f["name"], "{0:.3g}".format(f["value"]), f["unit"], f["bound"], "yes" if met(f) else "MISSED", f["peer"]] for f in results]
    print("\n".join(table([("figure", "left"), ("value", "right"), ("unit", "left"), ("bound", "left"), ("met", "left"), ("peer", "left")], rows)))
    return 0 if all(met(f) for f in results) else 1


if __name__ == "__main__":
    sys.exit(main())
