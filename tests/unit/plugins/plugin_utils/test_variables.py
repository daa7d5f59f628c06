# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables: whatever -e, a survey or a file gives becomes what the option says, or is refused."""
from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _variables
from hypothesis import given, settings
from hypothesis import strategies as st

OPTIONS = [(entry, name, option) for entry, options in _variables.option_file().items() for name, option in options.items()]
REQUIRED = {"create": {"vm_name": "web"}, "scale": {"vm_name": "web"}, "power": {"vm_action": "start"}}


def of_type(kind: str) -> list:
    return [pytest.param(entry, name, id="{0}-{1}".format(entry, name)) for entry, name, option in OPTIONS if option["type"] == kind]


def read(entry: str, name: str, value: Any) -> Any:
    return _variables.read(entry, dict(REQUIRED.get(entry, {}), **{name: value}))[name]


@pytest.mark.parametrize("entry, name", of_type("bool"))
@pytest.mark.parametrize("text, value", [("true", True), ("True", True), ("yes", True), ("on", True), ("1", True), (True, True), (1, True),
                                         ("false", False), ("False", False), ("no", False), ("off", False), ("0", False), (False, False), (0, False)])
def test_every_boolean_as_a_string(entry: str, name: str, text: Any, value: bool) -> None:
    assert read(entry, name, text) is value


@pytest.mark.parametrize("entry, name", of_type("bool"))
def test_no_boolean_takes_anything_else(entry: str, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(entry, name, "maybe")
    assert caught.value.option == name and caught.value.value == "maybe"


@pytest.mark.parametrize("entry, name", of_type("int"))
def test_every_number_as_a_string(entry: str, name: str) -> None:
    number = 1 if name == "vm_reserve_failures" else 7
    assert read(entry, name, str(number)) == read(entry, name, number) == read(entry, name, " {0} ".format(number)) == number


@pytest.mark.parametrize("entry, name", of_type("int"))
@pytest.mark.parametrize("bad", ["seven", "1.5", "-1", "1e3", True, "0x10"])
def test_no_number_takes_anything_else(entry: str, name: str, bad: Any) -> None:
    with pytest.raises(SpecError) as caught:
        read(entry, name, bad)
    assert caught.value.option == name


@pytest.mark.parametrize("entry, name", of_type("list"))
def test_every_list_in_all_its_forms(entry: str, name: str) -> None:
    options = _variables.option_file()[entry][name]
    if options.get("elements") == "dict":
        wanted = [{"path": "/a"}, {"path": "/b"}]
        forms = [wanted, json.dumps(wanted), yaml.safe_dump(wanted)]
    else:
        wanted = ["a", "b"]
        forms = [wanted, "a,b", "a, b", '["a", "b"]', "[a, b]", "- a\n- b", "a\nb\n"]
    assert [read(entry, name, form) for form in forms] == [wanted] * len(forms)


@pytest.mark.parametrize("entry, name", of_type("dict"))
def test_every_mapping_in_all_its_forms(entry: str, name: str) -> None:
    forms = [{"a": "b"}, "a=b", '{"a": "b"}', "a: b", "a: b\n"]
    assert [read(entry, name, form) for form in forms] == [{"a": "b"}] * len(forms)
    with pytest.raises(SpecError):
        read(entry, name, "just words")


@pytest.mark.parametrize("entry, name, option", [pytest.param(e, n, o, id="{0}-{1}".format(e, n)) for e, n, o in OPTIONS if o.get("choices")])
def test_choices(entry: str, name: str, option: dict) -> None:
    for choice in option["choices"]:
        assert read(entry, name, choice) == choice
    with pytest.raises(SpecError, match="Use one of"):
        read(entry, name, "nonsense")


@pytest.mark.parametrize("name, option", [pytest.param(n, o, id=n) for e, n, o in OPTIONS if e == "create" and n != "vm_name"])
def test_an_empty_text_is_not_given(name: str, option: dict) -> None:
    assert read("create", name, "") == option.get("default")


def test_force_off_may_be_written_with_a_hyphen() -> None:
    assert read("power", "vm_action", "force-off") == "force_off"


@pytest.mark.parametrize("raw, name", [({}, "vm_name"), ({"vm_name": None}, "vm_name")])
def test_what_is_required(raw: dict, name: str) -> None:
    with pytest.raises(SpecError, match="is missing") as caught:
        _variables.read("create", raw)
    assert caught.value.option == name


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="Perhaps vm_memory was meant") as caught:
        _variables.refuse_unknown(["vm_memroy", "vm_name", "other"])
    assert caught.value.option == "vm_memroy"
    _variables.refuse_unknown([name for entry, name, option in OPTIONS] + ["ansible_host", "x"])


def test_yaml_that_surprises_does_not() -> None:
    text = "- 2015-04-30\n- 1:30\n- yes\n- 0644\n- 12\n- true\n- 1e3\n- ~"
    assert _variables.to_list("x", text) == ["2015-04-30", "1:30", "yes", "0644", 12, True, "1e3", None]


def test_broken_structures_say_where_and_not_what() -> None:
    with pytest.raises(SpecError, match="line 2, column") as caught:
        _variables.to_list("vm_users", '[{"name": "a", "password": "geheim"')
    assert "geheim" not in str(caught.value)


def test_options_are_documented() -> None:
    assert all(option["description"] and option["type"] for entry, name, option in OPTIONS)
    tasks = os.path.join(os.path.dirname(_variables._OPTION_FILE), "..", "tasks")
    assert not [entry for entry, name, option in OPTIONS if not os.path.exists(os.path.join(tasks, entry + ".yml"))]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_converted_or_refused(text: str) -> None:
    for convert in (_variables.to_bool, _variables.to_list, _variables.to_dict):
        try:
            convert("x", text)
        except SpecError as exc:
            assert exc.option == "x"
