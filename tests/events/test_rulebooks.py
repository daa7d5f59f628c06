# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rulebooks, by a real ansible-rulebook: who may ask, for what, and what comes of it."""
from __future__ import annotations

import os

import pytest

from ansible_collections.kvmfleet.core.tests.events.conftest import CREATE, SCALE, post, post_signed, send

VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_state": "stopped"}
LONG = bool(os.environ.get("KVMFLEET_LONG"))


def names(lab):
    """The names of all VMs."""
    return [name for name, _meta in lab.ours()]


def alert(number, wanted="web", direction="up", **more):
    """A firing alert as Alertmanager sends it."""
    return dict({"status": "firing", "labels": {"alertname": "busy", "instance": str(number), "kvmfleet_set": wanted, "kvmfleet_scale": direction},
                 "startsAt": "2026-01-01T00:00:00.123Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "{0:016x}".format(number)}, **more)


def body(*alerts, **more):
    """A body of Alertmanager."""
    return dict({"version": "4", "status": "firing", "receiver": "kvmfleet", "groupKey": "{}:{}", "truncatedAlerts": 0, "alerts": list(alerts)}, **more)


REFUSED = [
    (b"{", "JSON"), (b"\xff\xfe", ""), (b"[" * 3000 + b"]" * 3000, ""), ([], "not a JSON object"), ({}, "operation"), ({"operation": "drop"}, "operation"),
    ({"operation": ["create"]}, "operation"), ({"operation": "create"}, "vm_name is missing"),
    ({"operation": "create", "vm_name": "{{ lookup('pipe', 'id') }}"}, "vm_name"), ({"operation": "create", "vm_name": "a" * 64}, "vm_name"),
    ({"operation": "create", "vm_name": "web", "vm_user_data": "/etc/shadow"}, "vm_user_data"),
    ({"operation": "create", "vm_name": "web", "ansible_connection": "local"}, "ansible_connection"),
    ({"operation": "create", "vm_name": "web", "vm_ssh_key": "/root/.ssh/id_rsa"}, "vm_ssh_key"),
    ({"operation": "create", "vm_name": "web", "vm_count": 10 ** 9}, "vm_count"), ({"operation": "delete", "vm_name": "*"}, "vm_name")]


def test_who_may_ask_and_for_what(rulebooks, lab):
    """Without the token, or with what is not allowed, nothing begins, and whoever sent it is told why."""
    lab.clean()
    port, good = rulebooks["ports"]["webhook"], dict(VM, operation="create", vm_name="bad")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic czNjcmV0"}):
        assert send(port, good, headers).status == 401
    assert post(port, good, token="").status == 401 and send(port, good, method="PUT").status in (401, 405)
    for wrong, said in REFUSED:
        answer = post(port, wrong)
        assert answer.status in ((400,) if said else (400, 500)) and said in answer.text, (wrong, answer)
    assert post(port, b" " * (2 << 20)).status == 413
    assert "Carry it out" not in rulebooks["webhook"].output and rulebooks["webhook"].alive


def test_the_life_of_a_vm_by_webhook(rulebooks, lab):
    """One request after the other; one that fails ends nothing."""
    lab.clean()
    port, rulebook = rulebooks["ports"]["webhook"], rulebooks["webhook"]
    for size, request in ((2, dict(VM, operation="create", vm_name="web", vm_count=2, vm_labels={"tier": "front"})),
                          (2, {"operation": "power", "vm_name": "lost", "vm_action": "start"}),
                          (3, {"operation": "scale", "vm_name": "web", "vm_direction": "up", "vm_max": 3}),
                          (0, {"operation": "delete", "vm_name": "web", "vm_count": 3, "vm_confirm": 3})):
        answer = post(port, request)
        assert answer.status == 200, answer
        rulebook.until(lambda size=size: len(names(lab)) == size)
    assert "there is no such VM" in rulebook.output and lab.residue() == []


def test_a_burst_of_alerts_acts_once(rulebooks, fleet, lab):
    """Repeated, in bodies of their own and together, one set after the other; what is not in autoscale_sets, resolved or somebody else's, does nothing."""
    lab.clean()
    port, rulebook = rulebooks["ports"]["autoscale"], rulebooks["autoscale"]
    for label in ("web", "db"):
        fleet.does("create_vm", vm_name=label, vm_count=1, vm_ssh_key="none", vm_wait="none", **VM)
    assert post(port, body(alert(1)), token="wrong").status == 401
    for wrong in ({}, {"alerts": [1]}, body(alert(1, wanted="{{ 7 }}")), body(alert(1, direction="sideways")), body(alert(1, startsAt="now"))):
        assert post(port, wrong).status == 400
    assert post(port, body(alert(1, wanted="unknown"))).status == 200
    assert post(port, body(alert(1, status="resolved"), {"status": "firing", "labels": {"alertname": "other"}})).status == 200
    for number in range(20 if LONG else 5):
        # Every other one in company, so that it is not the same event to the rulebook.
        assert post(port, body(alert(1), *([alert(1)] * (number % 2)))).status == 200
    # Two of which one is new, and then another set: events are carried out one after the other.
    assert post(port, body(alert(1), alert(2))).status == 200
    assert post(port, body(alert(3, wanted="db"))).status == 200
    rulebook.until(lambda: "db-2" in names(lab))
    assert names(lab) == ["db-1", "db-2", "web-1", "web-2", "web-3"]
    post(port, body(alert(4, direction="down")))
    rulebook.until(lambda: names(lab) == ["db-1", "db-2", "web-1", "web-2"])


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_a_wrong_signature(rulebooks, secret):
    port = rulebooks["ports"]["webhook_hmac"]
    assert post_signed(port, {"operation": "delete", "vm_name": "web"}, secret=secret or "x").status == 401
    assert send(port, {"operation": "delete", "vm_name": "web"}).status == 400


def test_a_good_signature(rulebooks, fleet, lab):
    lab.clean()
    fleet.does("create_vm", vm_name="web", vm_ssh_key="none", vm_wait="none", **VM)
    port = rulebooks["ports"]["webhook_hmac"]
    assert post_signed(port, {"operation": "delete", "vm_name": "web", "vm_user_data": "x"}).status == 400
    assert post_signed(port, {"operation": "delete", "vm_name": "web"}).status == 200
    rulebooks["together"].until(lambda: not names(lab))


def test_jobs_of_awx(rulebooks, awx):
    """AWX gets the checked variables and nothing else; a job that fails and a template that is not there end nothing."""
    del awx.launched[:]
    together, ports = rulebooks["together"], rulebooks["ports"]
    assert post(ports["webhook_awx"], dict(VM, operation="create", vm_name="web")).status == 200
    together.until(lambda: len(awx.launched) == 1)
    assert awx.launched.pop() == (CREATE, dict(VM, vm_name="web"))
    awx.outcome = "failed"
    for request in ({"operation": "power", "vm_name": "web", "vm_action": "start"}, {"operation": "scale", "vm_name": "web", "vm_count": 2}):
        assert post(ports["webhook_awx"], request).status == 200
    together.until(lambda: len(awx.launched) == 1)
    assert awx.launched.pop() == (SCALE, {"vm_name": "web", "vm_count": 2}) and "Change the power state of VMs in" in together.output
    for wanted in ("unknown", "web"):
        assert post(ports["autoscale_awx"], body(alert(1, wanted=wanted), alert(2, wanted=wanted))).status == 200
    together.until(lambda: awx.launched)
    assert awx.launched == [(SCALE, {
        "vm_name": "web", "vm_direction": "up", "vm_min": 1, "vm_max": 3, "vm_cooldown": 0,
        "vm_alert": "2026-01-01T00:00:00.123Z@0000000000000001,2026-01-01T00:00:00.123Z@0000000000000002"})]
