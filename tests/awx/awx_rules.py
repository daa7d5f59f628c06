# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX 24 accepts as a survey, as answers to it, as a credential type and as a schedule, and what it makes of them for a job."""
from __future__ import annotations

import json
import re

import jinja2
from jinja2 import sandbox

TYPES = {"text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": float}
FIELD_KEYS = {"id", "label", "type", "format", "secret", "multiline", "default", "ask_at_runtime", "help_text", "choices"}
BLOCKED_ENV = {"VIRTUAL_ENV", "PATH", "PYTHONPATH", "JOB_ID", "INVENTORY_ID", "INVENTORY_SOURCE_ID", "INVENTORY_UPDATE_ID", "AD_HOC_COMMAND_ID", "REST_API_URL",
               "REST_API_TOKEN", "MAX_EVENT_RES", "CALLBACK_QUEUE", "CALLBACK_CONNECTION", "CACHE", "JOB_CALLBACK_DEBUG", "INVENTORY_HOSTVARS", "AWX_HOST",
               "PROJECT_REVISION", "SUPERVISOR_CONFIG_PATH"}


class Refused(Exception):
    """What AWX answers with a 400."""


def _require(condition, text, *args):
    if not condition:
        raise Refused(text.format(*args))


def _is(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def _lines(value):
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else list(value)


def check_survey(spec):
    """Raises Refused where a survey may not be stored."""
    for key, kind in (("name", str), ("description", str), ("spec", list)):
        _require(isinstance(spec.get(key), kind), "'{0}' has to be a {1}", key, kind.__name__)
    _require(spec["spec"], "'spec' doesn't contain any items")
    seen = set()
    for item in spec["spec"]:
        for key in ("type", "question_name", "variable", "required"):
            _require(isinstance(item.get(key), bool if key == "required" else str), "'{0}' of {1}", key, item)
        _require(item["variable"] not in seen, "{0} is asked twice", item["variable"])
        seen.add(item["variable"])
        _require(item["type"] in TYPES, "{0} is no type", item["type"])
        if item.get("default", "") != "":
            _require(_is(item["default"], TYPES[item["type"]]), "the default of {0} is no {1}", item["variable"], item["type"])
        for key in ("min", "max"):
            _require(item.get(key) is None or _is(item[key], int), "{0} of {1} is no integer", key, item["variable"])
        if item["type"] in ("multiplechoice", "multiselect"):
            choices = _lines(item.get("choices") or [])
            _require(choices and all(isinstance(choice, str) and choice for choice in choices), "{0} needs choices", item["variable"])
            defaults = _lines(item.get("default") or [])
            _require(item["type"] == "multiselect" or len(defaults) < 2, "{0} may have one default only", item["variable"])
            _require(set(defaults) <= set(choices), "the default of {0} is none of its choices", item["variable"])
            _require(len(set(choices)) == len(choices), "{0} has a choice twice", item["variable"])


def _check_answer(item, data):
    variable = item["variable"]
    if variable not in data:
        _require(not item["required"], "'{0}' value missing", variable)
        return
    value = data[variable]
    if item["type"] in ("text", "textarea", "password"):
        _require(isinstance(value, str), "{0} expected to be a string", variable)
        size = len(value)
    elif item["type"] == "integer":
        _require(_is(value, int), "{0} expected to be an integer", variable)
        size = value
    elif item["type"] == "float":
        _require(type(value) in (int, float), "{0} expected to be a numeric type", variable)
        size = value
    else:
        _require(isinstance(value, list) or item["type"] == "multiplechoice", "{0} is expected to be a list", variable)
        for answer in value if isinstance(value, list) else [value]:
            _require(answer in _lines(item["choices"]), "{0} expected to be one of {1}", variable, item["choices"])
        return
    _require(item.get("min") is None or size >= item["min"], "{0} is too small", variable)
    _require(item.get("max") is None or size <= item["max"], "{0} is too large", variable)


def launch(template, answers):
    """The extra variables of the job that a launch with these answers makes, and what AWX ignores of them. Raises Refused."""
    questions = (template.get("survey_spec") or {}).get("spec") or [] if template["survey_enabled"] else []
    for item in questions:
        _check_answer(item, answers)
    asked = {item["variable"] for item in questions}
    accepted = {key: value for key, value in answers.items() if key in asked or template["ask_variables_on_launch"]}
    defaults = {item["variable"]: item["default"] for item in questions if item.get("default") is not None}
    return dict(template["extra_vars"], **dict(defaults, **accepted)), sorted(set(answers) - set(accepted))


class _Filenames:
    """Names of injected files; without one of them there is nothing to refer to."""

    def __init__(self, names):
        self.__dict__.update(dict.fromkeys(names, "/tmp/file"))


def check_credential_type(made):
    """Raises Refused where a credential type may not be stored."""
    _require(made["kind"] in ("cloud", "net"), "{0} is no kind of one's own", made["kind"])
    _require(set(made["inputs"]) <= {"fields", "required"} and set(made["injectors"]) <= {"file", "env", "extra_vars"}, "unknown keys")
    ids = [field["id"] for field in made["inputs"]["fields"]]
    _require(len(set(ids)) == len(ids) and "tower" not in ids, "ids of fields are twice or reserved")
    _require(set(made["inputs"].get("required", [])) <= set(ids), "what is required is no field")
    for field in made["inputs"]["fields"]:
        _require(set(field) <= FIELD_KEYS and field.get("label"), "unknown keys of {0}", field)
        _require(re.match(r"^[a-zA-Z_]+[a-zA-Z0-9_]*$", field["id"]), "{0} is an invalid variable name", field["id"])
        _require(field.get("type", "string") in ("string", "boolean") and field.get("format") in (None, "ssh_private_key", "url"), "type of {0}", field)
        _require(field.get("type", "string") == "string" or not {"choices", "multiline", "format", "secret"} & set(field), "keys of a boolean {0}", field)
    files = list(made["injectors"].get("file", {}))
    _require(files in ([], ["template"]) or all(re.match(r"^template\.[a-zA-Z_]+[a-zA-Z0-9_]*$", name) for name in files), "one or several files")
    names = [name.partition(".")[2] for name in files]
    known = dict(dict.fromkeys(ids, "EXAMPLE"), tower={"filename": _Filenames(names) if names != [""] else "/tmp/file"})
    for kind, injector in made["injectors"].items():
        for key, text in injector.items():
            _require(kind == "file" or re.match(r"^[a-zA-Z_]+[a-zA-Z0-9_]*$", key), "{0} is no name", key)
            _require(kind != "env" or not (key.startswith("ANSIBLE_") or key in BLOCKED_ENV), "environment variable {0} is not allowed", key)
            try:
                sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined).from_string(text).render(known)
            except jinja2.UndefinedError as exc:
                raise Refused("{0} uses an undefined field ({1})".format(key, exc)) from None


def inject(credential_type, inputs, folder):
    """The environment and extra variables that a credential brings to a job, its files being written into a folder."""
    known, names = dict(inputs), {}
    environment = sandbox.ImmutableSandboxedEnvironment()
    for name, text in credential_type["injectors"].get("file", {}).items():
        path = folder / ("credential-" + name)
        path.write_text(environment.from_string(text).render(known))
        path.chmod(0o600)
        names[name.partition(".")[2]] = str(path)
    known["tower"] = {"filename": names}
    return tuple({key: environment.from_string(text).render(known) for key, text in credential_type["injectors"].get(kind, {}).items()}
                 for kind in ("env", "extra_vars"))


def check_rrule(rule):
    """Raises Refused where a schedule may not be stored."""
    _require(re.match(r"^DTSTART:\d{8}T\d{6}Z RRULE:FREQ=(MINUTELY|HOURLY|DAILY|WEEKLY|MONTHLY|YEARLY);INTERVAL=[1-9]\d*$", rule), "{0} is no rule", rule)


def extra_vars_file(variables, trusted):
    """As AWX writes them for ansible-runner: what was not written in the template itself is marked, so that no answer is a template."""
    lines = []
    for key, value in variables.items():
        safe = trusted.get(key) == value or not isinstance(value, str)
        lines.append("{0}: {1}{2}".format(json.dumps(key), "" if safe else "!unsafe ", json.dumps(value)))
    return "\n".join(lines) + "\n"
