# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The C(vm_*) variables: which there are, and their conversion from what C(-e), a survey or an inventory gives. No I/O but the option file."""
from __future__ import annotations

import difflib
import functools
import os
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import yaml

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError, parse_int

_OPTION_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "roles", "vm", "meta", "argument_specs.yml")
PREFIXES = ("vm_", "fleet_page_")
_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
NOT_GIVEN = "-"  # the choice of surveys that stands for no choice
# What an argument spec cannot say.
_BOUNDS = {"vm_count": (1, 10000), "vm_vcpus": (1, 4096), "vm_max_vcpus": (1, 4096), "vm_wait_timeout": (1, 86400), "vm_shutdown_timeout": (0, 86400),
           "vm_max_per_host": (1, 10000), "vm_reserve_failures": (0, 1), "vm_claim_ttl": (5, 86400), "vm_capacity_timeout": (1, 3600),
           "vm_min": (1, 10000), "vm_max": (1, 10000), "vm_step": (1, 10000), "vm_cooldown": (0, 30 * 86400)}


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader without the conversions that surprise: 2015-04-30 stays a text, 1:30 is not a number, yes and no are not booleans."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile("^(?:0|-?[1-9][0-9]*)$"), list("-0123456789"))


@functools.lru_cache(maxsize=None)
def option_file() -> Dict[str, Dict[str, Dict[str, Any]]]:
    """Per entry point of the role C(vm) its options, as written in its argument_specs.yml."""
    with open(_OPTION_FILE, encoding="utf-8") as stream:
        data = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry: spec["options"] for entry, spec in data["argument_specs"].items()}


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that helps somebody who mistyped a name: the nearest known one, else all of them (or how many there are)."""
    known = sorted(str(k) for k in known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return "Perhaps {0} was meant".format(close[0])
    if not known:
        return "None is defined"
    return "Known: {0}{1}".format(", ".join(known[:12]), "" if len(known) <= 12 else " and {0} more".format(len(known) - 12))


def refuse_unknown(names: Iterable[str]) -> None:
    """Raises SpecError for a C(vm_*) or C(fleet_page_*) name that no entry point knows; it would be ignored silently otherwise."""
    known = {name for options in option_file().values() for name in options}
    for name in sorted(names):
        if name.startswith(PREFIXES) and name not in known:
            raise SpecError(name, None, "is not a variable of these playbooks", nearest(name, known), "unknown_variable")


def _structure(option: str, text: str) -> Any:
    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = "" if mark is None else " (line {0}, column {1})".format(mark.line + 1, mark.column + 1)
        raise SpecError(option, None, "is not valid JSON or YAML{0}".format(where), "Correct it, or give the variables in a file: -e @file.yml") from None


def to_bool(option: str, value: Any) -> bool:
    """A boolean out of itself or one of the words that Ansible takes for one."""
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise SpecError(option, value, "is neither true nor false", "Write true or false")


def to_list(option: str, value: Any) -> List[Any]:
    """A list out of a list, JSON or YAML text, lines, or words separated by commas."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return [value]
    text = str(value).strip()
    if text.startswith(("[", "{", "- ")):
        loaded = _structure(option, text)
        return loaded if isinstance(loaded, list) else [loaded]
    parts = text.splitlines() if "\n" in text else text.split(",")
    return [part.strip() for part in parts if part.strip()]


def to_dict(option: str, value: Any) -> Dict[str, Any]:
    """A mapping out of a mapping, JSON or YAML text, or C(key=value,key=value)."""
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    text = str(value).strip()
    if "\n" in text or text.startswith("{") or ("=" not in text and ":" in text):
        loaded = _structure(option, text)
        if isinstance(loaded, dict):
            return {str(k): v for k, v in loaded.items()}
    elif text and all("=" in part for part in text.split(",")):
        return {key.strip(): part.strip() for key, sep, part in (item.partition("=") for item in text.split(","))}
    raise SpecError(option, None if "\n" in text else text, "is not a mapping", "Write key=value,key=value, or JSON")


def to_text(option: str, value: Any) -> str:
    """A text; structures and booleans are refused, because their text would surprise."""
    if isinstance(value, (Mapping, list, tuple, bool)):
        raise SpecError(option, None, "is a {0}, a text is needed".format("boolean" if isinstance(value, bool) else "structure"), "Put it in quotes")
    return str(value)


def bounds(name: str) -> Tuple[int, Optional[int]]:
    """The least and the largest number that a variable may be."""
    return _BOUNDS.get(name, (0, None))


def convert(name: str, option: Mapping[str, Any], value: Any) -> Any:
    """One variable's value in the type that its option has. Raises SpecError."""
    kind = option.get("type", "str")
    if kind == "bool":
        return to_bool(name, value)
    if kind == "raw":
        return value
    if kind == "int":
        return parse_int(name, value, *bounds(name))
    if kind == "dict":
        return to_dict(name, value)
    if kind == "list":
        items = to_list(name, value)
        if option.get("elements") == "str":
            return [to_text("{0}[{1}]".format(name, i), item) for i, item in enumerate(items)]
        if option.get("elements") == "dict":
            return [to_dict("{0}[{1}]".format(name, i), item) for i, item in enumerate(items)]
        return items
    text = to_text(name, value)
    if option.get("choices"):
        text = text.strip().replace("force-off", "force_off")
        if text not in option["choices"]:
            raise SpecError(name, text, "is not possible", "Use one of {0}".format(", ".join(option["choices"])))
    return text


def is_given(value: Any) -> bool:
    """Whether a value is one: surveys send an empty text for questions left out, and C(NOT_GIVEN) where they know no empty choice."""
    return value is not None and (not isinstance(value, str) or value.strip() not in ("", NOT_GIVEN))


def read(entry: str, raw: Mapping[str, Any]) -> Dict[str, Any]:
    """All variables of an entry point, converted; those not given have their default or C(None).

    What is not given (see L(is_given)) is left out. Only a name may not be empty.

    :param raw: values as they came, already templated
    """
    values: Dict[str, Any] = {}
    for name, option in option_file()[entry].items():
        value = raw.get(name)
        given = is_given(value) or (value is not None and option.get("required", False))
        values[name] = convert(name, option, value) if given else option.get("default")
        if values[name] is None and option.get("required"):
            raise SpecError(name, None, "is missing", "Add -e {0}=...".format(name), "missing_variable")
    return values
