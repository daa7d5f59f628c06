# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing VMs and reporting waits, on libvirt's own test driver and without any."""
from __future__ import annotations

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.module_utils import _guest, _vm_list
from ansible_collections.kvmfleet.core.plugins.module_utils._connection import FleetError
from ansible_collections.kvmfleet.core.plugins.module_utils._metadata import VmMetadata
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

META = VmMetadata(group="blue", namespace="prod", set="web", labels={"tier": "front", "x": "1"})


@pytest.fixture
def conn():
    """libvirt's test driver, with its one running domain, C(test)."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.mark.parametrize("conditions, ours, foreign", [
    ({}, True, True), ({"managed_only": True}, True, False), ({"group": "blue"}, True, False), ({"group": "red"}, False, False),
    ({"group": "blue", "namespace": "prod", "set": "web"}, True, False), ({"group": "blue", "namespace": "test"}, False, False),
    ({"set": "db"}, False, False), ({"labels": {"tier": "front"}}, True, False), ({"labels": {"tier": "front", "x": "1"}}, True, False),
    ({"labels": {"tier": "front", "y": "1"}}, False, False), ({"labels": {"tier": "back"}}, False, False),
])
def test_conditions_on_metadata(conditions, ours, foreign):
    """All have to hold; any of them leaves out domains that are not ours."""
    selection = _vm_list.Selection(**conditions)
    assert (selection.owned(META), selection.owned(None)) == (ours, foreign)


def test_names_and_patterns():
    """Case counts; a name without pattern means itself."""
    assert _vm_list.Selection(names=["web*", "db1"]).named("web-3") and not _vm_list.Selection(names=["web*", "db1"]).named("db12")
    assert not _vm_list.Selection(names=["WEB*"]).named("web1") and _vm_list.Selection().named("anything")
    assert not _vm_list.Selection(names=[]).named("web1")
    assert _vm_list.Selection(names=["a", "b"]).exact and not _vm_list.Selection(names=["a", "b?"]).exact and not _vm_list.Selection().exact


@given(st.text(alphabet="abc-.01", min_size=1, max_size=8))
def test_an_exact_name_means_itself_only(name):
    """Domain names have no characters that mean anything in a pattern."""
    selection = _vm_list.Selection(names=[name])
    assert selection.exact and selection.named(name) and not selection.named(name + "0")


def params(**given):
    """vm_info's parameters."""
    return dict({"addresses": True, "address_sources": None, "agent_timeout": 5, "timeout": 5, "ssh_port": 22, "wait": "none"}, **given)


def test_a_domain_of_another_driver_is_listed(conn):
    """Also where hypervisor and definition are not of our making."""
    result, error = _vm_list.inform(conn, params(names=["test", "nowhere"]))
    assert error is None and result["missing"] == ["nowhere"] and result["changed"] is False
    vm = result["vms"][0]
    assert (vm["name"], vm["state"], vm["managed"], vm["phase"], vm["addresses"]) == ("test", "running", False, None, [])
    assert _vm_list.inform(conn, params(state=["stopped"]))[0]["vms"] == []
    assert [v["name"] for v in _vm_list.inform(conn, params(names=["t*"], state=["running", "stopped"]))[0]["vms"]] == ["test"]


@pytest.mark.parametrize("given, asked", [({"names": ["test"]}, _guest.SOURCES), ({}, ("lease", "arp")), ({"names": ["t*"]}, ("lease", "arp")),
                                          ({"address_sources": ["agent"]}, ["agent"]), ({"addresses": False}, None)])
def test_lists_do_not_ask_agents_unless_told_to(conn, monkeypatch, given, asked):
    """Agents are asked for VMs that are named, or on request."""
    seen = []
    monkeypatch.setattr(_guest, "observed_addresses", lambda domain, root, tables, sources, timeout: seen.append(sources) or [])
    _vm_list.inform(conn, params(**given))
    assert seen == ([] if asked is None else [asked])


@pytest.mark.parametrize("option, value", [("agent_timeout", 0), ("timeout", -1), ("ssh_port", 0), ("ssh_port", 65536)])
def test_numbers_have_bounds(conn, option, value):
    """The option is named."""
    with pytest.raises(SpecError) as caught:
        _vm_list.inform(conn, params(**{option: value}))
    assert caught.value.option == option


def test_waits_that_fail_are_reported_with_those_that_do_not(conn, monkeypatch):
    """Each VM that did not answer is named with its last state; an error of libvirt's is one, too."""
    outcomes = {"a": {"name": "a", "waited_for": "ssh", "seconds": 1.0, "address": "192.0.2.1", "cloud_init": None},
                "b": FleetError("b: no SSH within 5 s; last state: refused", "wait_timeout", name="b", last_state="refused"),
                "c": libvirt.libvirtError("connection lost")}

    def wait_for(domain, *_rest):
        if isinstance(outcomes[domain], Exception):
            raise outcomes[domain]
        return outcomes[domain]
    monkeypatch.setattr(_guest, "wait_for", wait_for)
    vms = [_vm_list.Vm(name, None, {"name": name}, []) for name in outcomes]
    waits = _vm_list.wait(conn, vms, "ssh", 5)
    assert [w["name"] for w in waits] == ["a", "b", "c"] and waits[0] == outcomes["a"]
    assert waits[1]["last_state"] == "refused" and waits[1]["reason"] == "wait_timeout" and "connection lost" in waits[2]["error"]
    error = _vm_list.failure_of(waits, "ssh", 5)
    assert "2 of 3" in str(error) and "b: no SSH" in str(error) and "c: " in str(error) and "a:" not in str(error)
    assert _vm_list.failure_of(waits[:1], "ssh", 5) is None


def test_there_has_to_be_someone_to_wait_for(conn):
    """Names that are not there, and selections of nothing."""
    with pytest.raises(SpecError, match="nowhere"):
        _vm_list.inform(conn, params(names=["test", "nowhere"], wait="address"))
    with pytest.raises(SpecError, match="no VM on this host"):
        _vm_list.inform(conn, params(group="blue", wait="address"))
