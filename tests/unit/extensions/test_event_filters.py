# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event filters: whatever somebody sends, nothing passes but what is listed, in characters that nobody reads anything into."""
from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from typing import Any, Dict

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _variables

EDA = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))), "extensions", "eda")


def loaded(name: str) -> Dict[str, Any]:
    """What a filter has, by name; as ansible-rulebook loads it, from its file."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(EDA, "plugins", "event_filter", name + ".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


REQUESTS, ALERTS = loaded("vm_request"), loaded("alerts")
ALL = list(REQUESTS["OPERATIONS"])
HARMLESS = re.compile(r"[A-Za-z0-9 ._:/@+,=-]*")

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.sampled_from(
    ["web", "2GiB", "{{ 7 }}", "{% raw %}", "$(id)", "a\nb", "../x", "up", "start", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
NAMES = sorted({name for variables in REQUESTS["OPERATIONS"].values() for name in variables})
BODIES = st.fixed_dictionaries({"operation": st.sampled_from([*ALL, "drop"]), "vm_name": st.just("web") | JSON},
                               optional={name: JSON for name in NAMES if name != "vm_name"})


def refusal(filtered: Dict[str, Any], payload: Any, *arguments: Any) -> str:
    with pytest.raises(filtered["Refusal"]) as caught:
        filtered["read"](payload, *arguments)
    return str(caught.value)


@given(BODIES | JSON)
def test_nothing_else_passes(payload: Any) -> None:
    try:
        request = REQUESTS["read"](payload, ALL)
    except REQUESTS["Refusal"]:
        return
    known = REQUESTS["OPERATIONS"][request["operation"]]
    assert set(request["given"]) <= set(known) and set(request) == {"operation", "given", *NAMES}
    assert {name: request[name] for name in request["given"]} == request["given"]
    assert all(request[name] == "" for name in NAMES if name not in request["given"])
    for value in request["given"].values():
        assert isinstance(value, int) or HARMLESS.fullmatch(value), value


def test_what_is_asked_for_passes_as_the_playbooks_read_it() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@laptop"
    bodies: Dict[str, Dict[str, Any]] = {
        "create": {"vm_name": "web", "vm_count": "3", "vm_group": "blue", "vm_namespace": "prod", "vm_image": "debian:12", "vm_flavor": "small",
                   "vm_vcpus": 2, "vm_memory": "1.5GiB", "vm_disk": "20G", "vm_storage_class": "ssd", "vm_network": "lan", "vm_ssh_key": key,
                   "vm_host": "kvm1.example.org", "vm_zone": "east", "vm_region": "eu", "vm_spread": "zone", "vm_labels": {"tier": "front", "a": "b"},
                   "vm_state": "stopped"},
        "delete": {"vm_name": ["web", "db"], "vm_confirm": 2}, "power": {"vm_name": "web,db", "vm_action": "start"},
        "scale": {"vm_name": "web", "vm_direction": "up", "vm_min": 1, "vm_max": 4, "vm_step": 1, "vm_cooldown": 0, "vm_alert": "abc@1",
                  "vm_ssh_key": key}}
    for operation, given_ in bodies.items():
        request = REQUESTS["read"](dict(given_, operation=operation), ALL)
        assert set(request["given"]) == set(given_)
        values = _variables.read(operation, request["given"])
        assert all(values[name] is not None for name in given_)
    request = REQUESTS["read"](dict(bodies["create"], operation="create"), ALL)
    assert (request["vm_labels"], request["vm_count"], request["vm_action"]) == ("a=b,tier=front", 3, "")
    assert REQUESTS["read"](dict(bodies["delete"], operation="delete"), ALL)["vm_name"] == "web,db"
    for operation in ("create", "scale"):
        assert REQUESTS["read"](dict(bodies[operation], operation=operation, vm_ssh_key="none"), ALL)["vm_ssh_key"] == "none"


@pytest.mark.parametrize("name", ["vm_request", "alerts"])
def test_without_a_request_a_bad_body_is_dropped_and_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """In whatever task the source runs: an exception would end it."""
    main = {"vm_request": REQUESTS, "alerts": ALERTS}[name]["main"]

    async def source() -> Any:
        return main({"payload": []})

    assert main({"payload": []}) == [] and asyncio.run(source()) == []
    assert [(record.name, record.getMessage()[:29]) for record in caplog.records] == [
        ("kvmfleet.core." + name, "A body was dropped: The body ")] * 2


@pytest.mark.parametrize(("payload", "said"), [
    ({"operation": "create", "vm_name": "web", "vm_user_data": "x"}, "vm_user_data"),
    ({"operation": "create", "vm_name": "web", "ansible_host": "x"}, "ansible_host"),
    ({"operation": "delete", "vm_name": "web-*"}, "vm_name"), ({"operation": "power", "vm_name": "web", "vm_action": "explode"}, "vm_action"),
    ({"operation": "scale", "vm_name": "web", "vm_count": True}, "vm_count"), ({"operation": "scale", "vm_name": "web", "vm_count": "٣"}, "vm_count"),
    ({"operation": "scale", "vm_name": "web", "vm_ssh_key": "/root/.ssh/id_rsa.pub"}, "vm_ssh_key"),
    ({"operation": "create", "vm_name": "web", "vm_ssh_key": "nonesuch"}, "vm_ssh_key"),
    ({"operation": "create", "vm_name": "web\n"}, "vm_name"), ({"operation": "create", "vm_name": ""}, "vm_name is missing"),
    ({"operation": "power", "vm_name": "web"}, "vm_action is missing"),
    ({"operation": "create", "vm_name": "web", "vm_labels": {"a": "{{ b }}"}}, "vm_labels"), ({"operation": "delete", "vm_name": ["a"] * 101}, "vm_name")])
def test_refusals_say_what_is_wrong(payload: Dict[str, Any], said: str) -> None:
    assert said in refusal(REQUESTS, payload, ALL)


def test_an_operation_that_is_not_allowed() -> None:
    assert "power, scale" in refusal(REQUESTS, {"operation": "delete", "vm_name": "web"}, ["power", "scale"])


def alert(number: int = 1, wanted: Any = "web", direction: Any = "up", **more: Any) -> Dict[str, Any]:
    return dict({"status": "firing", "labels": {"kvmfleet_set": wanted, "kvmfleet_scale": direction}, "startsAt": "2026-01-01T00:00:00Z",
                 "fingerprint": "{0:x}".format(number)}, **more)


@given(JSON | st.fixed_dictionaries({"alerts": st.lists(JSON | st.builds(
    alert, number=st.integers(0, 9), wanted=JSON | st.just("web"), direction=JSON | st.just("up"), startsAt=JSON | st.just("2026-01-01T00:00:00Z"),
    status=JSON | st.just("resolved")), max_size=4)}))
def test_no_alert_brings_anything_else(payload: Any) -> None:
    try:
        requests = ALERTS["read"](payload)
    except ALERTS["Refusal"]:
        return
    for request in requests:
        assert set(request["given"]) <= {"vm_name", "vm_namespace", "vm_group", "vm_direction", "vm_alert"}
        assert all(HARMLESS.fullmatch(value) for value in [request["set"], *request["given"].values()])


def test_alerts_of_a_set_are_one_request() -> None:
    found = ALERTS["read"]({"alerts": [alert(2), alert(1), alert(1), alert(3, direction="down"), alert(4, wanted="db.prod.blue"),
                                       alert(5, status="resolved"), {"labels": {"alertname": "other"}}]})
    start = "2026-01-01T00:00:00Z@"
    assert found == [
        {"set": "db.prod.blue", "given": {"vm_name": "db", "vm_namespace": "prod", "vm_group": "blue", "vm_direction": "up", "vm_alert": start + "4"}},
        {"set": "web", "given": {"vm_name": "web", "vm_direction": "up", "vm_alert": start + "1," + start + "2"}},
        {"set": "web", "given": {"vm_name": "web", "vm_direction": "down", "vm_alert": start + "3"}}]
    assert len(ALERTS["read"]({"alerts": [alert(i) for i in range(200)]})[0]["given"]["vm_alert"].split(",")) == 50
    assert ALERTS["main"]({"payload": {"alerts": []}}) == []
    assert _variables.read("scale", found[0]["given"])["vm_alert"] == [start + "4"]


@pytest.mark.parametrize(("payload", "said"), [
    (None, "no list of alerts"), ({"alerts": {}}, "no list of alerts"), ({"alerts": [1]}, "alerts[0] has no labels"),
    ({"alerts": [alert(wanted="a.b")]}, "kvmfleet_set"),
    ({"alerts": [alert(), alert(direction="x")]}, "alerts[1].labels.kvmfleet_scale"), ({"alerts": [alert(startsAt="now")]}, "startsAt"),
    ({"alerts": [alert(fingerprint="{{ x }}")]}, "fingerprint")])
def test_bodies_that_are_refused(payload: Any, said: str) -> None:
    assert said in refusal(ALERTS, payload)


@pytest.mark.parametrize("name", ["webhook", "webhook_hmac"])
def test_the_rulebook_hands_on_every_variable(name: str) -> None:
    with open(os.path.join(EDA, "rulebooks", name + ".yml"), encoding="utf-8") as stream:
        action = yaml.safe_load(stream)[0]["rules"][0]["action"]["run_playbook"]
    assert set(action["extra_vars"]) == {*NAMES, "vm_wait"}
