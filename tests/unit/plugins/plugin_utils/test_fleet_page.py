# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet page without a browser: what it counts, what it calls things, and that nothing in it is more than text."""
from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils._placement import Amount, HostCapacity, Request, place
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import GIB, SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _fleet_page, _page_html
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_page import Page, natural, percent
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_report import Fleet, compose
from ansible_collections.kvmfleet.core.plugins.plugin_utils._last_run import keep, read_run, short
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import read
from ansible_collections.kvmfleet.core.tests.browser.page_fleets import CATALOGS, REFUSED, UNREACHABLE, example, host, info, page, troubled, vm

ROOT = os.path.abspath(__file__).partition(os.sep + os.path.join("tests", "unit"))[0]


def view(results: Dict[str, Any], places: Optional[Dict[str, Any]] = None, infos: Optional[Dict[str, Any]] = None, last_run: Any = None, **given: str) -> Page:
    hosts = [read_host(name, (places or {}).get(name, {})) for name in results]
    fleet = Fleet(hosts, results, Catalogs(CATALOGS), read("fleet_page", given))
    return _fleet_page.page_of(fleet, compose("capacity", fleet), infos or {}, "Fleet", last_run)


def widths(shown: Page) -> Dict[str, float]:
    return {name: float(text) for name, text in re.findall(r"\.(w\d+)\{width:([0-9.]+)%\}", shown.widths.css())}


class Reader(html.parser.HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.texts: List[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


vms = st.lists(st.builds(lambda number, flavor, stopped, managed, phase: vm("vm-{0}".format(number), flavor, stopped=stopped, managed=managed, phase=phase),
                         st.integers(0, 10 ** 6), st.sampled_from(["small", "medium", "large", "huge"]), st.booleans(), st.booleans(),
                         st.sampled_from(["ready", "pending", "building", "deleting", "failed"])), max_size=12, unique_by=lambda one: one["name"])


@given(vms, st.integers(1, 64), st.integers(8, 256), st.integers(0, 1), st.integers(0, 4), st.floats(0.5, 4))
@settings(max_examples=60)
def test_a_bar_is_the_sum_of_its_parts(own: List[Dict[str, Any]], vcpus: int, memory: int, kept_vcpus: int, kept_memory: int, ratio: float) -> None:
    shown = view({"kvm1": host(own, vcpus, memory, reserved=(kept_vcpus, kept_memory), ratio=round(ratio, 2))})
    width = widths(shown)
    card = shown.hosts[0]
    assert sorted(card.vms) == list(range(len(own))) and [meter.name for meter in card.bars] == ["vCPUs", "Memory", "Pool default"]
    for meter in card.bars:
        drawn = sum(width[block.width] for block in meter.blocks) + (width[meter.reserved_width] if meter.reserved_width else 0)
        assert drawn <= 100.02 and meter.over == bool(meter.excess) == ("more than there is" in meter.left)
        parts = [part for block in meter.blocks for part in block.inner or [block]]
        assert all(sum(width[part.width] for part in block.inner) == pytest.approx(100, abs=0.01) for block in meter.blocks if block.inner)
        assert sorted(block.vm for block in parts if block.vm is not None) == [
            number for number, one in enumerate(shown.data["vms"]) if meter.name != "Pool default" or one.get("managed", True)]
        order = [_fleet_page.KINDS.index(block.kind) for block in meter.blocks]
        assert order == sorted(order)
    free = 100 - sum(width[block.width] for block in card.bars[1].blocks) - (width[card.bars[1].reserved_width] if card.bars[1].reserved_width else 0)
    left, whole = (memory - kept_memory) * 1024 - sum(one["memory_mib"] for one in own), memory * 1024
    if left >= 0:
        assert free == pytest.approx(left / whole * 100, abs=0.02)


def test_stopped_vms_count_as_their_host_says() -> None:
    own = [vm("a", "large"), vm("b", "large", stopped=True), vm("c", "large", stopped=True, phase="pending")]
    told = host(own, vcpus=16, reserved=(0, 0), ratio=1.0)
    told["vcpus"].update(allocated=10, available=6)
    told["memory"].update(allocated_mib=own[0]["memory_mib"] * 5 // 2, available_mib=128 * 1024 - own[0]["memory_mib"] * 5 // 2)
    shown = view({"kvm1": told}, {"kvm1": {"kvm_stopped_factor": 0.5}})
    width, bars = widths(shown), shown.hosts[0].bars
    assert {shown.data["vms"][block.vm or 0]["name"]: width[block.width] for block in bars[0].blocks} == {"a": 25, "c": 25, "b": 12.5}
    assert bars[0].note == "" and bars[0].reserved == "", "nothing is left over that is nobody's"


def test_what_is_in_a_pool_that_is_no_vms() -> None:
    shown = view({"kvm1": host([vm("a"), vm("foreign", managed=False)], pools=(("default", 100), ("ssd", 50)), images_gib=10)})
    default, ssd = shown.hosts[0].bars[2:]
    assert (default.given, default.note, [block.kind for block in default.blocks]) == ("30 GiB of 100 GiB", "10 GiB images", ["run", "rest"])
    assert (ssd.given, [block.kind for block in ssd.blocks], ssd.percent) == ("10 GiB of 50 GiB", ["rest"], "20 %")


def test_states_come_from_the_guests_if_they_are_known() -> None:
    own = [vm("a"), vm("b", stopped=True), vm("c", phase="failed", stopped=True), vm("d", phase="building")]
    assert view({"kvm1": host(own)}).states == {"building": 1, "failed": 1, "running": 1, "stopped": 1}
    seen = info(own)
    seen["vms"][0]["state"] = "paused"
    shown = view({"kvm1": host(own)}, infos={"kvm1": seen})
    assert shown.states["paused"] == 1 and shown.data["vms"][0]["addresses"] == [seen["vms"][0]["addresses"][0]["address"]]
    lost = view({"kvm1": host(own)}, infos={"kvm1": {"msg": "The connection broke"}})
    assert "Addresses and descriptions of VMs on kvm1 are missing: The connection broke" in lost.notes


def test_regions_zones_and_hosts_in_an_order_people_expect() -> None:
    places = {"kvm10": {"kvm_zone": "b", "kvm_region": "eu"}, "kvm9": {"kvm_zone": "b", "kvm_region": "eu"}, "kvm1": {"kvm_zone": "b", "kvm_region": "us"},
              "kvm2": {}}
    shown = view({name: host([vm("on-" + name)]) for name in places}, places)
    assert [(zone.region, zone.name, [card.name for card in zone.cards]) for zone in shown.zones] == [
        ("", "", ["kvm2"]), ("eu", "b", ["kvm9", "kvm10"]), ("us", "b", ["kvm1"])]
    assert [meter.given for meter in shown.zones[1].bars] == ["2 of 120", "4.2 GiB of 248 GiB", "100 GiB of 4 TiB"]
    assert [meter.given for meter in shown.bars] == ["4 of 240", "8.5 GiB of 496 GiB", "200 GiB of 8 TiB"]


def test_dead_hosts_count_for_nothing_and_are_named() -> None:
    shown = view({"kvm1": host([]), "kvm2": UNREACHABLE, "kvm3": {"msg": "libvirt hangs", "reason": "host_unreachable"}, "kvm4": dict(UNREACHABLE)})
    assert (shown.up, len(shown.hosts), [card.status for card in shown.hosts]) == (1, 4, ["up", "unreachable", "unreachable", "unreachable"])
    assert shown.silent == [("kvm2, kvm4", "The host is unreachable: " + UNREACHABLE["msg"]), ("kvm3", "libvirt hangs")]
    assert shown.hosts[1].bars == [] and shown.data["hosts"][1]["message"].startswith("The host is unreachable")


def test_a_group_sees_its_own_vms_only() -> None:
    own = [vm("mine", "large", group="shop"), vm("theirs", "huge", group="lab"), vm("nobodys", "small")]
    shown = view({"kvm1": host(own)}, vm_group="shop")
    text = _page_html.render(shown, "")
    assert [one["name"] for one in shown.data["vms"]] == ["mine"] and shown.hosts[0].others == shown.others == 2
    assert "theirs" not in text and "nobodys" not in text
    assert [(block.kind, block.vm) for block in shown.hosts[0].bars[0].blocks] == [("run", 0), ("rest", None)]
    assert shown.hosts[0].bars[0].note == "17 of others" and shown.quota[0] == "1 of 40 VMs"


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), min_size=1, max_size=3), st.text(max_size=40), st.text(min_size=1, max_size=30))
@settings(max_examples=40)
def test_texts_of_others_stay_texts(labels: Dict[str, str], text: str, name: str) -> None:
    own = [vm(name, group=text or None, labels=labels, addresses=[text], networks=[text])]
    told = info(own)
    told["vms"][0]["description"] = text
    shown = page({"kvm1": host(own), "kvm2": {"unreachable": True, "msg": text}}, {"kvm1": {"kvm_zone": "zone " + text}}, {"kvm1": told}, title="Fleet " + text)
    plain = page({"kvm1": host([vm("x", group="x", labels={"x": "x"}, addresses=["x"], networks=["x"])]), "kvm2": {"unreachable": True, "msg": "x"}},
                 {"kvm1": {"kvm_zone": "zone x"}}, {"kvm1": info([vm("x")])}, title="Fleet x")
    shown.encode("utf-8")

    def skeleton(whole: str) -> List[str]:
        return [tag for tag, _attributes in Reader(whole).tags]
    assert skeleton(shown) == skeleton(plain)
    data = _page_html.data_of(shown)
    assert data and data["vms"][0]["name"] == (_fleet_page.plain(name) or "?")
    assert not re.search("[<>&\u2028\u2029]", re.findall('id="data">(.*?)</script>', shown)[0])


def test_the_policy_names_just_what_is_there() -> None:
    text = page(**example(), last_run=REFUSED)
    policy = next(attributes["content"] for tag, attributes in Reader(text).tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none';") and "unsafe" not in policy
    for tag in ("style", "script"):
        body = re.findall("<{0}>(.*?)</{0}>".format(tag), text, re.DOTALL)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode("utf-8")).digest()).decode("ascii")
        assert "{0}-src 'sha256-{1}'".format(tag, digest) in policy
    attributes = [name for _tag, found in Reader(text).tags for name in found]
    assert not [name for name in attributes if name == "style" or name.startswith("on") or name == "src"]
    links = {found["href"] or "" for _tag, found in Reader(text).tags if "href" in found} - {"data:,"}
    assert links and links <= {"#" + (found.get("id") or "") for _tag, found in Reader(text).tags}, "to places on the page"
    assert not re.search("https?://|url\\(|@import", text)


def test_old_browsers_get_plain_colours() -> None:
    style = re.findall("<style>(.*?)</style>", page(**example()), re.DOTALL)[0]
    assert "light-dark(" not in style
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    rules = re.findall(r"(:root[^{]*) \{ ?(?:color-scheme: [a-z ]+;)?([^}]*)\}", style)
    assert [name for name, _body in rules] == [":root", ":root", ':root[data-theme="light"]', ':root[data-theme="dark"]', ":root, :root[data-theme]"]
    values = [dict(re.findall(r"--([\w-]+): ([^;]+);", body)) for _name, body in rules]
    assert all(used <= set(each) for each in values)
    assert values[0] == values[2] == values[4] != values[1] == values[3] and (values[0]["bg"], values[1]["bg"]) == ("#f4f6f8", "#0e1318")
    assert values[0]["shadow"].count("rgb(") == 2 and values[1]["shadow"].count("transparent") == 2


def test_a_closed_host_has_nothing_left() -> None:
    shown = view({"kvm1": host([vm("a")], ratio=1.0), "kvm2": host([vm("b")], ratio=1.0)}, {"kvm2": {"kvm_schedulable": False}})
    one, other = (card.bars[0] for card in shown.hosts)
    assert (one.left, one.closed, other.left, other.closed) == ("29 left", "", "", "29 closed")
    assert (shown.bars[0].given, shown.bars[0].left, shown.bars[0].closed) == ("2 of 60", "29 left", "29 closed")
    width = widths(shown)
    assert width[shown.bars[0].closed_width] == pytest.approx(29 / 64 * 100, abs=0.01) and width[other.closed_width] == pytest.approx(29 / 32 * 100, abs=0.01)
    assert shown.closed and not view({"kvm1": host([])}).closed


def test_regions_have_totals_and_zones_of_one_name_are_two() -> None:
    shown = view(**troubled())
    assert [(region.region, [meter.given for meter in region.bars][:1], region.attention) for region in shown.regions] == [
        ("berlin", ["300 of 504"], 1), ("munich", ["93 of 180"], 3)]
    assert [(zone.title, len(zone.cards)) for zone in shown.zones] == [("berlin / a", 1), ("munich / a", 1), ("munich / b", 2)]
    assert shown.flavor_zones == ["berlin/a", "munich/a", "b"]
    assert [(number, zone.name) for number, zone in shown.zones_of("munich")] == [(2, "a"), (3, "b")]


def test_what_needs_attention() -> None:
    shown = view(**troubled())
    assert [(trouble.what, [link.text for link in trouble.links]) for trouble in shown.troubles] == [
        ("1 VM failed", ["tiny-120 on kvm1"]), ("1 VM crashed", ["mail on kvm3"]), ("1 VM paused", ["db-1 on kvm2"]),
        ("Over-booked", ["kvm2: vCPUs 143 %, Memory 269 %"]), ("Pools with nothing left to give out", ["kvm2: Pool default 164 %"]),
        ("Pools almost full of what is written", ["kvm4: Pool default"])]
    assert {card.name: card.flags for card in shown.hosts} == {
        "kvm1": ["1 failed"], "kvm2": ["1 paused", "vCPUs over-booked", "Memory over-booked", "Pool default over-booked"], "kvm3": ["1 crashed"],
        "kvm4": ["Pool default almost full"]}
    assert shown.attention == 4 and view({"kvm1": host([vm("a")])}).troubles == []
    full = view({"kvm1": host([], pools=(("default", 30),)), "kvm2": host([], pools=(("default", 60),), images_gib=59), "kvm10": host([], vcpus=2)})
    assert [(trouble.what, [link.text for link in trouble.links]) for trouble in full.troubles] == [
        ("Pools with nothing left to give out", ["kvm1: Pool default 100 %"]), ("Pools almost full of what is written", [
            "kvm1: Pool default", "kvm2: Pool default"])], "a host that has given out all its CPUs is just full"
    dead = view({"kvm{0}".format(number): UNREACHABLE for number in (2, 10)} | {"kvm1": host([])})
    assert [link.text for link in dead.troubles[0].links] == ["kvm2", "kvm10"] and "No route to host" in dead.troubles[0].why


def test_thin_neighbours_of_one_look_are_drawn_as_one() -> None:
    shown = view(**troubled())
    width = widths(shown)
    for meter, share in zip(shown.hosts[0].bars, (300 / 512, None, None)):
        assert [(block.kind, len(block.inner)) for block in meter.blocks][:3] == [("run", 271), ("bad", 0), ("stop", 28)]
        if share:
            assert sum(width[block.width] for block in meter.blocks) == pytest.approx(share * 100, abs=0.02)
    assert [block.inner for block in shown.hosts[1].bars[0].blocks[:5]] == [[]] * 5, "those that are wide enough stand alone"


def test_what_counts_as_a_change() -> None:
    arguments = example()
    first = page(**arguments, time="2026-01-01T00:00:00Z")
    arguments["results"]["kvm1"]["memory"]["used_mib"] -= 100
    arguments["results"]["kvm1"]["pools"]["ssd"]["used_bytes"] += GIB
    drifted = page(**arguments, time="2026-01-01T00:05:00Z")
    assert first != drifted and _page_html.print_of(first) == _page_html.print_of(drifted)
    arguments["infos"]["kvm1"]["vms"][0]["state"] = "paused"
    changed = page(**arguments)
    assert _page_html.print_of(changed) != _page_html.print_of(first)
    before, after = (_page_html.data_of(text) for text in (first, changed))
    assert before and after and [line for line in _fleet_page.lines(after) if line not in _fleet_page.lines(before)] == [
        line for line in _fleet_page.lines(after) if line.startswith("vm web-1 on kvm1: state paused, size 2 vCPUs, 4 GiB")]
    assert _page_html.print_of("<p>") is None and _page_html.data_of("<p>") is None
    assert _page_html.data_of('<script type="application/json" id="data">[1]</script>') is None
    assert _page_html.data_of('<script type="application/json" id="data">{</script>') is None


def test_refusals_of_a_run() -> None:
    run = read_run(REFUSED)
    assert (run["verb"], run["time"], run["failed"]) == ("create", "2026-11-29T16:12:44Z", True)
    assert [refusal["vms"] for refusal in run["refusals"]] == ["web-9, web-10"]
    assert [row["host"] for row in run["refusals"][0]["rows"]] == ["kvm1", "kvm2", "kvm5"]
    assert read_run({"artifacts": {"kvmfleet": REFUSED}}) == read_run({"kvmfleet": REFUSED}) == run
    counted = read_run({"verb": "create", "placement": {"vms": [{"name": "a", "refused": [], "reasons": {"memory": 40, "zone": 1}}]}})
    assert [(row["host"], row["code"]) for row in counted["refusals"][0]["rows"]] == [("40 hosts", "memory"), ("1 host", "zone")]
    failed = read_run({"verb": "create", "vms": [{"name": "a", "host": "kvm1", "msg": "No space", "reason": "disk_full"}, {"name": "b", "host": "kvm1"}]})
    assert failed["refusals"] == [{"vms": "a", "names": [], "rows": [{"host": "kvm1", "code": "disk_full", "reason": "No space"}]}]
    many = read_run({"verb": "create", "vms": [{"name": str(number), "host": "kvm1", "msg": "No {0}".format(number)} for number in range(60)]})
    assert (len(many["refusals"]), many["more"]) == (50, 10)
    placements = ([1], {"vms": 1}, {"vms": [1]}, {"vms": [{"refused": [1]}]}, {"vms": [{"reasons": 3}]}, {"refusals": 1}, {"refusals": [{"vms": "a"}]},
                  {"refusals": [{"reasons": [1]}]}, {"refusals": [{"vms": [], "reasons": {"a": 1}, "examples": {"a": 1}}]})
    for bad in (None, [], "x", {}, {"verb": 1}, {"kvmfleet": {}}, {"verb": "create", "vms": 1}, {"verb": "create", "vms": [1]},
                *({"verb": "create", "placement": placement} for placement in placements)):
        with pytest.raises(SpecError, match="is not the result of a run"):
            read_run(bad)


def test_reasons_of_many_hosts_have_an_example_each(tmp_path: Any) -> None:
    hosts = [HostCapacity("kvm{0:03}".format(number), Amount(8000), Amount(1024 * number), schedulable=number % 10 > 0) for number in range(1, 101)]
    made = place([Request("web-{0}".format(number), 1000, 200 * 1024) for number in range(1, 6)], hosts)
    data = {"verb": "create", "failed": True, "msg": made.message, "placement": made.as_result(every_host=True)}
    keep(str(tmp_path / "last.json"), data)
    in_file = json.loads((tmp_path / "last.json").read_text())
    assert [len(group["hosts"]) for group in in_file["placement"]["refusals"]] == [100], "all of it is in the file"
    artifact = short(data)
    assert "hosts" not in artifact["placement"]["refusals"][0] and len(json.dumps(artifact)) < 8000 and "refusals" in data["placement"]
    assert short({"verb": "delete"}) == {"verb": "delete"}
    for run in (in_file, artifact):
        (refusal,) = read_run(run)["refusals"]
        assert (refusal["vms"], refusal["names"]) == ("web-1, web-2, web-3 and 2 more", ["web-1", "web-2", "web-3", "web-4", "web-5"])
        assert refusal["rows"] == [
            {"host": "90 hosts, such as kvm099", "code": "no_memory", "reason": "kvm099 has 99 GiB left, 200 GiB asked"},
            {"host": "10 hosts, such as kvm010", "code": "unschedulable", "reason": "kvm010 takes no new VMs (schedulable is false)"}]
    few = place([Request("db", 1000, 200 * 1024)], hosts[8:10]).as_result(every_host=True)
    assert [row["host"] for row in read_run({"verb": "create", "placement": few})["refusals"][0]["rows"]] == ["kvm009", "kvm010"]


def test_the_result_of_a_run_is_kept(tmp_path: Any) -> None:
    path = tmp_path / "result.json"
    keep(str(path), REFUSED, check_mode=True)
    assert not path.exists()
    keep(str(path), REFUSED)
    assert path.stat().st_mode & 0o777 == 0o600 and '"verb": "create"' in path.read_text()
    keep(None, REFUSED)
    for check_mode in (True, False):
        with pytest.raises(SpecError, match="vm_result_file"):
            keep(str(tmp_path / "no" / "result.json"), REFUSED, check_mode)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_share_boasts_nothing(part: int, whole: int) -> None:
    text = percent(part, whole)
    assert (text == "0 %") == (part == 0 and whole > 0) and (text == "100 %") == (part == whole and whole > 0)
    assert part <= whole or text.startswith("over") or int(text.split()[0]) > 100


def test_names_are_sorted_as_people_do() -> None:
    assert sorted(["kvm10", "b1", "kvm9", "9", "kvm", "10"], key=natural) == ["9", "10", "b1", "kvm", "kvm9", "kvm10"]


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at:at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [1, 2])
def test_contrast_is_enough(scheme: int) -> None:
    with open(os.path.join(ROOT, "roles", "vm", "templates", "fleet_page.css"), encoding="utf-8") as stream:
        colours = {found[0]: found[scheme] for found in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", stream.read())}

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
        return (light + 0.05) / (dark + 0.05)
    texts = [("ink", back) for back in ("bg", "card", "track", "warn-bg", "stop", "stop-2", "busy", "busy-2")] + [("muted", "bg"), ("muted", "card")]
    texts += [("on-hold", "hold"), ("on-hold", "hold-2")]
    texts += [("on-run", "run"), ("on-bad", "bad"), ("on-bad", "bad-2"), ("on-alien", "alien"), ("up", "card"), ("bad", "card"), ("card", "ink")]
    assert {pair: round(contrast(*pair), 2) for pair in texts if contrast(*pair) < 4.5} == {}
    # What is no text but has to be seen
    shapes = [("hold-2", "card")]
    shapes += [("run", "track"), ("use", "card"), ("focus", "card"), ("focus", "run"), ("kept", "track"), ("bad", "track"), ("alien", "track")]
    assert {pair: round(contrast(*pair), 2) for pair in shapes if contrast(*pair) < (3 if pair[1] != "run" and pair[0] != "kept" else 1)} == {}
