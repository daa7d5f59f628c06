# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rulebooks, by a real ansible-rulebook: who may ask, for what, and what comes of it."""
from __future__ import annotations

import os
import runpy

import pytest
import yaml
from jinja2 import UndefinedError

from ansible_rulebook.util import substitute_variables

from ansible_collections.kvmfleet.core.plugins.plugin_utils import _scaling
from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.events.conftest import (
    CREATE, KEY, RULEBOOKS, SCALE, SECRET, Rulebook, free_port, job_templates, post, post_signed, send)

VM = {"vm_image": "debian:12", "vm_memory": "64MiB", "vm_vcpus": 1, "vm_state": "stopped"}
AWX_VM = {"vm_image": "debian:12", "vm_flavor": "small", "vm_ssh_key": KEY}
# Names and words that are numbers, or something else, to Python
ODD = ("0x10", "00", "0b1", "1e3", "1234e56", "none", "true")
FILTER = runpy.run_path(os.path.join(os.path.dirname(RULEBOOKS), "plugins", "event_filter", "vm_request.py"))
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


def ruleset(name):
    """A rulebook's only ruleset."""
    with open(os.path.join(RULEBOOKS, name + ".yml"), encoding="utf-8") as stream:
        return yaml.safe_load(stream)[0]


def request_of(operation, **given):
    """A request as the event filter lets it pass."""
    return FILTER["read"](dict(given, operation=operation), list(FILTER["OPERATIONS"]))


# -- what ansible-rulebook makes of the rulebooks' templates --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["webhook", "webhook_hmac"])
def test_texts_stay_texts_on_their_way_to_a_playbook(name):
    """What one is told to delete is deleted, and not what Python takes it for."""
    templates = ruleset(name)["rules"][0]["action"]["run_playbook"]["extra_vars"]
    for odd in ODD:
        for request in (request_of("create", vm_name=odd, vm_group=odd, vm_namespace=odd, vm_image=odd, vm_zone=odd, vm_labels={odd: odd}, vm_count=3),
                        request_of("delete", vm_name=["1", "2", odd], vm_confirm="3"), request_of("scale", vm_name=odd, vm_alert=odd, vm_ssh_key=KEY)):
            made = substitute_variables(templates, {"event": {"request": request}})
            assert {key: value for key, value in made.items() if value != ""} == dict(request["given"], vm_wait="none")
            assert substitute_variables(templates, {"event": {"request": request}, "webhook_group": odd})["vm_group"] == odd
    assert substitute_variables(templates, {"event": {"request": request}, "webhook_group": 0})["vm_group"] == "0", "given, and not for all groups"


def test_texts_stay_texts_on_their_way_to_awx():
    given = substitute_variables(ruleset("webhook_awx")["rules"][0]["action"]["run_job_template"]["job_args"], {
        "event": {"request": request_of("delete", vm_name="0x10", vm_group="red", vm_confirm=2)}, "webhook_group": "00"})
    assert given["extra_vars"] == {"vm_name": "0x10", "vm_group": "00", "vm_confirm": 2}
    given = substitute_variables(ruleset("webhook_awx")["rules"][0]["action"]["run_job_template"]["job_args"], {
        "event": {"request": request_of("delete", vm_name="0x10", vm_group="red")}})
    assert given["extra_vars"] == {"vm_name": "0x10", "vm_group": "red"}


def test_what_an_operator_has_set_reaches_the_playbook_as_it_is():
    """Everything that the seed of new VMs may be made of can be set, and an alert of a set that is not listed gets nowhere."""
    templates = ruleset("autoscale")["rules"][0]["action"]["run_playbook"]["extra_vars"]
    own = dict(dict.fromkeys(_scaling.SEED_VARIABLES, "1e3"), vm_runcmd=["0x10", ["a", "b"]], vm_users=[{"name": "00", "uid": 7}],
               vm_user_data="#cloud-config\n" + "{'a': \"b\"}\n" * 40, vm_allow_other_seed=True, vm_max=3, vm_cooldown="0")
    for odd in ODD:
        event = {"scale": {"set": odd, "given": {"vm_name": odd, "vm_namespace": odd, "vm_group": odd, "vm_direction": "up", "vm_alert": odd}}}
        made = substitute_variables(templates, {"event": event, "autoscale_sets": {odd: own}})
        assert {key: value for key, value in made.items() if value != ""} == dict(own, **event["scale"]["given"], vm_wait="none")
        with pytest.raises(UndefinedError):
            substitute_variables(templates, {"event": event, "autoscale_sets": {"web": own}})


@pytest.mark.parametrize("name", sorted(name[:-len(".yml")] for name in os.listdir(RULEBOOKS)))
def test_no_rulebook_listens_without_its_secret(name):
    argument, variable = ("hmac_secret", "webhook_secret") if name == "webhook_hmac" else ("token", "webhook_token")
    template = ruleset(name)["sources"][0]["eda.builtin.webhook"][argument]
    for given in ({}, {variable: ""}, {variable: None}):
        with pytest.raises(UndefinedError, match=variable + "_is_missing_or_empty"):
            substitute_variables(template, given)
    assert [substitute_variables(template, {variable: given}) for given in ("12345678", 12345678, "a'b\"c")] == ["12345678", "12345678", "a'b\"c"]


@pytest.mark.parametrize(("name", "secrets"), [("webhook_hmac", {"webhook_secret": ""})] + [
    pytest.param(name, {"webhook_token": ""}, marks=pytest.mark.long) for name in ("webhook", "autoscale_awx")])
def test_a_rulebook_without_its_secret_ends_at_once(name, secrets, tmp_path, awx):
    """Signed with the empty secret, anyone's request would be good."""
    (tmp_path / "inventory.yml").write_text("all: {hosts: {localhost: {}}}")
    rulebook = Rulebook("kvmfleet.core." + name, tmp_path, tmp_path / "inventory.yml", [], {
        "EDA_CONTROLLER_URL": "http://127.0.0.1:{0}".format(awx.server_address[1]), "EDA_CONTROLLER_TOKEN": "awx"},
        webhook_port=free_port(), autoscale_sets={}, **secrets)
    try:
        assert rulebook.process.wait(300) != 0 and "{0}_is_missing_or_empty".format(*secrets) in rulebook.output
    finally:
        rulebook.stop()


def test_awx_takes_every_request_that_the_filter_lets_pass():
    """The largest and the smallest of each operation, by the templates for operators and for a group: nothing is refused, nothing dropped."""
    owner = {"vm_group": "blue", "vm_namespace": "prod"}
    largest = {
        "create": dict(AWX_VM, vm_count=2, vm_network="default", vm_zone="east", vm_region="eu", vm_host="kvm1", vm_disk="2GiB",
                       vm_storage_class="ssd", vm_spread="host", **owner),
        "delete": dict(owner, vm_count=2, vm_confirm=2), "power": dict(owner, vm_count=2, vm_action="start"),
        "scale": dict(owner, vm_count=2, vm_direction="up", vm_min=1, vm_max=3, vm_step=1, vm_cooldown=0, vm_alert="x", vm_ssh_key="none")}
    titles = {"create": "Create VMs", "delete": "Delete VMs", "power": "Change the power state of VMs", "scale": "Scale a set of VMs"}
    made = job_templates()
    for operation, body in largest.items():
        known = set(FILTER["OPERATIONS"][operation]) - set(FILTER["AWX_DROPS"].get(operation, ()))
        smallest = {name: body[name] for name in (*FILTER["REQUIRES"][operation], *FILTER["AWX_REQUIRES"].get(operation, ()))}
        assert set(body) | {"vm_name"} == known
        for asked in (body, smallest):
            given = FILTER["read"](dict(asked, operation=operation, vm_name="web"), list(largest), True)["given"]
            for who in ("kvmfleet", "blue"):
                variables, ignored = awx_rules.launch(made["{0}: {1}".format(who, titles[operation])], given)
                assert ignored == (["vm_group"] if who == "blue" and "vm_group" in given else [])
                assert variables["vm_group"] == ("blue" if who == "blue" else given.get("vm_group", "-"))
        for name in set(smallest) | set(FILTER["AWX_DROPS"].get(operation, ())):
            wrong = dict(body, operation=operation, vm_name="web", **({name: None} if name in smallest else {name: VM.get(name, {"a": "b"})}))
            with pytest.raises(FILTER["Refusal"], match=name):
                FILTER["read"](wrong, list(largest), True)


# -- what they do -----------------------------------------------------------------------------------------------------------------------------

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
    """One request after the other; one that fails ends nothing. The key that the VMs have is not on this machine, and the name is a number to Python."""
    lab.clean()
    port, rulebook = rulebooks["ports"]["webhook"], rulebooks["webhook"]
    up = {"operation": "scale", "vm_name": "0x10", "vm_direction": "up", "vm_max": 3}
    for size, request in ((2, dict(VM, operation="create", vm_name="0x10", vm_count=2, vm_labels={"tier": "front"}, vm_ssh_key=KEY)),
                          (2, {"operation": "power", "vm_name": "lost", "vm_action": "start"}),
                          (2, up), (3, dict(up, vm_ssh_key=KEY)),
                          (0, {"operation": "delete", "vm_name": "0x10", "vm_count": 3, "vm_confirm": 3})):
        answer = post(port, request)
        assert answer.status == 200, answer
        rulebook.until(lambda size=size: names(lab) == ["0x10-{0}".format(number) for number in range(1, size + 1)])
    assert "there is no such VM" in rulebook.output and "has key me@laptop, which is not in" in rulebook.output and lab.residue() == []


def test_a_burst_of_alerts_acts_once(rulebooks, fleet, lab):
    """Repeated and different ones, in bodies of their own and together, one set after the other; what is not in autoscale_sets, resolved or somebody else's,
    does nothing. The key that new VMs get is the operator's to say.
    """
    lab.clean()
    port, rulebook = rulebooks["ports"]["autoscale"], rulebooks["autoscale"]
    for label, key in (("web", KEY), ("1e3", "none")):
        fleet.does("create_vm", vm_name=label, vm_count=1, vm_ssh_key=key, vm_wait="none", **VM)
    assert post(port, body(alert(1)), token="wrong").status == 401
    for wrong in ({}, {"alerts": [1]}, body(alert(1, wanted="{{ 7 }}")), body(alert(1, direction="sideways")), body(alert(1, startsAt="now"))):
        assert post(port, wrong).status == 400
    assert post(port, body(alert(1, wanted="unknown"))).status == 200
    assert post(port, body(alert(1, status="resolved"), {"status": "firing", "labels": {"alertname": "other"}})).status == 200
    for number in range(20):
        # Three kinds of bodies; every other one in company, so that it is not the same event to the rulebook. Each kind costs a run of the playbook.
        first = number if LONG else number % 3
        assert post(port, body(alert(first), *([alert(first)] * (number % 2)))).status == 200
    rulebook.until(lambda: rulebook.output.count("and vm_cooldown is 600 s") >= (19 if LONG else 2))
    # Another set, without a cooldown: the same alert, then two of which one is new. Events are carried out one after the other.
    for alerts in ([9], [9], [9, 10]):
        assert post(port, body(*[alert(number, wanted="1e3") for number in alerts])).status == 200
    rulebook.until(lambda: "1e3-3" in names(lab))
    assert names(lab) == ["1e3-1", "1e3-2", "1e3-3", "web-1", "web-2"], "the first one acts, the others come within the cooldown"
    post(port, body(alert(11, wanted="1e3", direction="down")))
    rulebook.until(lambda: names(lab) == ["1e3-1", "1e3-2", "web-1", "web-2"])


@pytest.mark.parametrize("secret", ["wrong", "", str(int(SECRET) + 1)])
def test_a_wrong_signature(rulebooks, secret):
    port = rulebooks["ports"]["webhook_hmac"]
    assert post_signed(port, {"operation": "delete", "vm_name": "web"}, secret=secret).status == 401
    assert send(port, {"operation": "delete", "vm_name": "web"}).status == 400


def test_a_good_signature(rulebooks, fleet, lab):
    """And the group of all requests, whatever they say."""
    lab.clean()
    for group in ("blue", "red"):
        fleet.does("create_vm", vm_name="web", vm_group=group, vm_ssh_key="none", vm_wait="none", **VM)
    port = rulebooks["ports"]["webhook_hmac"]
    assert post_signed(port, {"operation": "delete", "vm_name": "web", "vm_user_data": "x"}).status == 400
    assert post_signed(port, {"operation": "delete", "vm_name": "web", "vm_group": "red"}).status == 200
    rulebooks["together"].until(lambda: names(lab) == ["web.default.red"])


def test_jobs_of_awx(rulebooks, awx):
    """AWX gets the checked variables, all of which it takes, and nothing else; a job that fails, one that AWX refuses, a template that is not there and an
    operation that is not allowed end nothing.
    """
    del awx.launched[:], awx.refused[:]
    together, port = rulebooks["together"], rulebooks["ports"]["webhook_awx"]
    for wrong, said in ((dict(VM, vm_name="web"), "vm_memory"), (dict(AWX_VM, vm_name="web", vm_flavor=""), "vm_flavor is missing")):
        answer = post(port, dict(wrong, operation="create"))
        assert answer.status == 400 and said in answer.text, answer
    assert post(port, dict(AWX_VM, operation="create", vm_name="0x10", vm_group="red")).status == 200
    together.until(lambda: len(awx.launched) == 1)
    assert awx.launched.pop() == (CREATE, dict(AWX_VM, vm_name="0x10", vm_group="blue"), [])
    awx.outcome = "failed"
    for request in (dict(AWX_VM, operation="create", vm_name="web", vm_image="lost:1"), {"operation": "power", "vm_name": "web", "vm_action": "start"},
                    {"operation": "delete", "vm_name": "web"}, {"operation": "scale", "vm_name": "web", "vm_count": 2, "vm_ssh_key": KEY}):
        assert post(port, request).status == 200
    together.until(lambda: len(awx.launched) == 1)
    assert awx.launched.pop() == (SCALE, {"vm_name": "web", "vm_count": 2, "vm_ssh_key": KEY, "vm_group": "blue"}, [])
    assert [name for name, _why in awx.refused] == [CREATE] and "Delete VMs in" in together.output
    assert "Not carried out, as webhook_operations does not have it: power web" in together.output
    for wanted in ("unknown", "web"):
        assert post(rulebooks["ports"]["autoscale_awx"], body(alert(1, wanted=wanted), alert(2, wanted=wanted))).status == 200
    together.until(lambda: awx.launched)
    assert awx.launched == [(SCALE, {
        "vm_name": "web", "vm_direction": "up", "vm_min": 1, "vm_max": 4, "vm_cooldown": 600, "vm_ssh_key": KEY,
        "vm_alert": "2026-01-01T00:00:00.123Z@0000000000000001,2026-01-01T00:00:00.123Z@0000000000000002"}, [])]


def test_a_bad_body_from_a_queue_is_dropped(rulebooks):
    """Nobody waits for an answer there; an exception would end the source, and all rulesets with it."""
    together = rulebooks["together"]
    for line in ("vm_request - WARNING - A body was dropped: operation is none of", "alerts - WARNING - A body was dropped: alerts[0] has no labels"):
        together.until(lambda line=line: "kvmfleet.core." + line in together.output)
    together.until(lambda: together.output.count("from the queue: queued") == 2)
