# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages say against what there is: links, commands with their playbooks and variables, YAML, keys of refusals."""
from __future__ import annotations

import ast
import functools
import json
import re
import shlex

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import HOST_SCHEMA, SCHEMAS, Catalogs, Host, read_host
from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_file import PLUGIN, read_fleet_file
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import convert
from ansible_collections.kvmfleet.core.tests.unit import doc_pages

ROOT = doc_pages.ROOT
PAGES = {page.name: page for page in doc_pages.pages()}
OURS = "kvmfleet.core."
# Options of ansible-playbook and its kin that take a value
WITH_VALUE = {"-i", "-e", "-l", "--limit", "-f", "--forks", "-u", "--user", "--extra-vars", "--inventory", "-t", "--tags", "--private-key",
              "--vault-password-file", "--vault-id", "--become-method", "--ssh-common-args", "-m", "-a", "-M", "--start-at-task", "-c", "--connection", "-T"}
HOST_VARIABLES = set(HOST_SCHEMA) | {"kvm_status", "kvm_capacity", "kvm_plan"}
# Parts of a command or a value that stand for something the reader puts there
PLACEHOLDER = re.compile(r"[<$]|\.\.\.|^[A-Z]+$")


class Loader(yaml.SafeLoader):
    """The safe loader with Ansible's tags."""


Loader.add_constructor("!vault", lambda loader, node: "secret")
Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def load(text):
    """All documents of a YAML text."""
    return list(yaml.load_all(text, Loader=Loader))


@functools.lru_cache(maxsize=None)
def specs(role):
    """Per entry point of a role its options."""
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    return {entry: spec.get("options") or {} for entry, spec in load(path.read_text())[0]["argument_specs"].items()}


ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
PLAYBOOKS = sorted(path.stem for path in ROOT.glob("playbooks/*.yml"))
MODULES = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py"))


def roles_of(data):
    """Role and entry point of every import_role and include_role of ours in a play, and of roles that it lists."""
    if isinstance(data, list):
        for item in data:
            yield from roles_of(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key.split(".")[-1] in ("import_role", "include_role") and str(value.get("name")).startswith(OURS):
                yield value["name"][len(OURS):], str(value.get("tasks_from") or "main").replace(".yml", "")
            elif key == "roles":
                for role in value:
                    name = role if isinstance(role, str) else role.get("role") or role.get("name")
                    if name.startswith(OURS):
                        yield name[len(OURS):], "main"
            else:
                yield from roles_of(value)


@functools.lru_cache(maxsize=None)
def options_of(playbook):
    """The variables of a playbook with their options: those of the roles that it runs."""
    options = {}
    for role, entry in roles_of(load((ROOT / "playbooks" / (playbook + ".yml")).read_text())):
        options.update(specs(role).get(entry) or {})
    return options


def playbook_of(word):
    """The name of a playbook of ours that a word of a command names, or None. Raises AssertionError where there is no such playbook."""
    name = word[len(OURS):] if word.startswith(OURS) else None
    path = re.match(r"^(?:\./|.*/)?playbooks/([a-z_]+)\.yml$", word)
    name = name or (path and path.group(1))
    assert name is None or name in PLAYBOOKS, "there is no playbook " + word
    return name


def extra_vars(words):
    """Name and value of everything that -e gives; None for a value that cannot be known."""
    for before, word in zip(words, words[1:]):
        if before not in ("-e", "--extra-vars") or word.startswith("@"):
            continue
        if word.startswith("{"):
            yield from json.loads(word).items()
            continue
        for part in shlex.split(word):
            name, sep, value = part.partition("=")
            assert sep, "-e {0} is no name=value".format(word)
            yield name, value


def check_variable(playbook, name, value):
    """One variable of a command: it exists, and its value is one."""
    options = options_of(playbook)
    if name in options:
        if value is not None and not (isinstance(value, str) and PLACEHOLDER.search(value)) and name.startswith("vm_"):
            convert(name, options[name], value)
        return
    text = (ROOT / "playbooks" / (playbook + ".yml")).read_text()
    assert name in SCHEMAS or name in HOST_SCHEMA or name.startswith("ansible_") or re.search(r"\b{0}\b".format(re.escape(name)), text), (
        "{0} is not a variable of {1}".format(name, playbook))


def check_command(text):
    """A command: what it names of ours exists."""
    words = shlex.split(text.split(" | ")[0], comments=True)
    while words and re.match(r"^[A-Z_]+=", words[0]) or words[:1] == ["sudo"]:
        words.pop(0)
    if not words:
        return
    program, words = words[0].split("/")[-1], words[1:]
    if program == "ansible-playbook":
        plain = [word for before, word in zip([""] + words, words) if not word.startswith("-") and before not in WITH_VALUE]
        playbooks = [name for name in map(playbook_of, plain) if name]
        for name, value in extra_vars(words):
            for playbook in playbooks:
                check_variable(playbook, name, value)
    elif program == "make":
        targets = re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for word in words:
            assert "=" in word or word.startswith("-") or word in targets or re.match(r"^units-2\.1[78]$", word), "there is no target " + word
    elif program == "ansible-doc":
        for word in words:
            if word.startswith(OURS):
                kind = words[words.index("-t") + 1] if "-t" in words else "module"
                where = {"role": "roles/{0}", "module": "plugins/modules/{0}.py"}.get(kind, "plugins/{1}/{0}.py").format(word[len(OURS):], kind)
                assert (ROOT / where).exists(), "there is no {0} {1}".format(kind, word)
    elif "scripts/" in text.split()[0]:
        assert (ROOT / text.split()[0]).is_file(), "there is no " + text.split()[0]


def every(what):
    """Parameters page and item, for each item of all pages."""
    found = []
    for name, page in PAGES.items():
        found += [pytest.param(name, item, id="{0}:{1}".format(name, item.line)) for item in what(page)]
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = PAGES[name]
    for link in page.links:
        if re.match(r"^[a-z]+:", link.target):
            continue
        path, _hash, anchor = link.target.partition("#")
        where = (page.path.parent / path).resolve() if path else page.path
        assert where.exists(), "line {0}: {1}".format(link.line, link.target)
        if anchor:
            assert anchor in doc_pages.read(where).anchors, "line {0}: {1}".format(link.line, link.target)


def test_the_index_names_every_page():
    named = {link.target.split("#")[0] for link in PAGES["docs/README.md"].links}
    assert sorted({path.name for path in ROOT.glob("docs/*.md")} - {"README.md"} - named) == []


def test_every_playbook_and_role_is_somewhere_in_the_pages():
    text = "\n".join(page.path.read_text() for page in PAGES.values())
    assert [name for name in PLAYBOOKS + ROLES if not re.search(r"\b{0}\b".format(name), text)] == []


def test_the_reference_names_everything():
    """Modules, plugins of every kind, event filters, rulebooks and roles: each as a word of its own in code, or as a link."""
    named = set(re.findall(r"[`\[.]([a-z_]+)[`\]]", PAGES["docs/reference.md"].path.read_text()))
    there = {path.stem for pattern in ("plugins/modules/*.py", "plugins/inventory/*.py", "plugins/callback/*.py", "plugins/lookup/*.py", "plugins/filter/*.py",
                                       "extensions/eda/plugins/*/*.py", "extensions/eda/rulebooks/*.yml") for path in ROOT.glob(pattern) if path.stem[0] != "_"}
    assert sorted((there | set(ROLES)) - named) == []


def test_the_reference_has_the_options_of_the_event_filters():
    text = PAGES["docs/reference.md"].path.read_text()
    for path in ROOT.glob("extensions/eda/plugins/event_filter/[a-z]*.py"):
        documents = [ast.literal_eval(node.value) for node in ast.parse(path.read_text()).body
                     if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION"]
        for option in yaml.safe_load(documents[0]).get("options") or {}:
            assert "`{0}`".format(option) in text, path.stem


def test_the_pages_say_how_to_install():
    """Every way, and every Python package that the control node may need."""
    page = PAGES["docs/install.md"]
    commands = "\n".join(command.text for command in page.commands())
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert all(way in commands for way in ("install kvmfleet.core\n", "install git+{0},".format(version["repository"]),
                                           "--offline build/kvmfleet-core-{0}.tar.gz".format(version["version"]))), commands
    packages = {re.split("[<>=~ ]", line)[0] for line in (ROOT / "meta" / "ee-requirements.txt").read_text().splitlines() if line and line[0] != "#"}
    assert [name for name in sorted(packages) if "pip install " + name not in page.path.read_text()] == []


@pytest.mark.parametrize("name,command", every(lambda page: page.commands()))
def test_commands_name_what_there_is(name, command):
    check_command(command.text)


@pytest.mark.parametrize("name", PAGES)
def test_names_of_ours_exist(name):
    known = set(PLAYBOOKS) | set(ROLES) | set(MODULES) | {path.stem for path in ROOT.glob("plugins/*/*.py")}
    known |= {path.stem for pattern in ("*/*.yml", "plugins/*/*.py") for path in ROOT.glob("extensions/eda/" + pattern)}  # rulebooks, event filters
    known |= {"kvmfleet"}  # the action group
    for found in re.findall(r"\bkvmfleet\.core\.([a-z_]+)", PAGES[name].path.read_text()):
        assert found in known, "there is no kvmfleet.core." + found


@pytest.mark.parametrize("name", PAGES)
def test_variables_that_pages_speak_of_exist(name):
    known = set().union(*(options for role in ROLES for options in specs(role).values())) | set(MODULES) | set(ROLES) | HOST_VARIABLES | set(SCHEMAS)
    for span in PAGES[name].spans:
        for word in re.findall(r"(?<![\w./-])vm_[a-z_]+(?![\w*./-])", span.text):
            assert word in known or word in PLAYBOOKS, "line {0}: there is no {1}".format(span.line, word)


# YAML

def texts_of(data, key=""):
    """Every mapping within some data, with the key that it stands under."""
    if isinstance(data, dict):
        yield key, data
        for name, value in data.items():
            yield from texts_of(value, str(name))
    elif isinstance(data, list):
        for value in data:
            yield from texts_of(value, key)


def templated(value):
    """Whether a value is, or holds, a template."""
    return "{{" in str(value) or "{%" in str(value)


def check_role_variables(role, entry, given):
    """Variables of a role: they exist, and are what its argument spec wants."""
    options = specs(role).get(entry)
    assert options is not None, "the role {0} has no entry point {1}".format(role, entry)
    plain = {name: value for name, value in given.items() if name in options and not templated(value)}
    spec = {name: dict(options[name], required=False) for name in plain}
    result = ArgumentSpecValidator(_without_docs(spec)).validate(plain)
    assert result.error_messages == []


def _without_docs(options):
    kept = ("type", "elements", "choices", "default", "required", "no_log")
    cleaned = {}
    for name, option in options.items():
        cleaned[name] = {key: option[key] for key in kept if key in option and not (key == "default" and option.get("required"))}
        if option.get("options"):
            cleaned[name]["options"] = _without_docs(option["options"])
    return cleaned


def prefix_role(name):
    """The role whose prefix a variable bears, or None."""
    return next((role for role in sorted(ROLES, key=len, reverse=True) if name.startswith(role + "_")), None)


def check_variables(data):
    """Catalogs, host variables and variables of roles, wherever in some data they are."""
    for _key, mapping in texts_of(data):
        catalogs = {name: value for name, value in mapping.items() if name in SCHEMAS and not templated(value)}
        Catalogs(catalogs).check_all()
        hosts = {name: value for name, value in mapping.items() if name in HOST_SCHEMA and not templated(value)}
        host = read_host("example", hosts)
        for network in host.networks:
            Host("example", networks=host.networks).network(network)
        for name in mapping:
            role = prefix_role(str(name))
            if role:
                known = set().union(*specs(role).values())
                assert name in known, "{0} is not a variable of the role {1}".format(name, role)
                entry = next(entry for entry, options in specs(role).items() if name in options)
                check_role_variables(role, entry, {name: mapping[name]})
            elif str(name).startswith("kvm_") and not str(name).startswith("kvm_vm"):
                assert name in HOST_VARIABLES or name == "kvm_hosts", "{0} is not a variable of a host".format(name)


def documented(module):
    """The options of a module, with those of its fragments. Undocumented arguments there are none: sanity sees to it."""
    tree = ast.parse((ROOT / "plugins" / "modules" / (module + ".py")).read_text())
    text = next(node.value.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "DOCUMENTATION")
    docs = yaml.safe_load(text)
    options = dict(docs.get("options") or {})
    for fragment in docs.get("extends_documentation_fragment") or []:
        name, _dot, variant = fragment[len(OURS):].partition(".")
        if not fragment.startswith(OURS):
            continue
        imported = __import__("ansible_collections.kvmfleet.core.plugins.doc_fragments." + name, fromlist=["ModuleDocFragment"]).ModuleDocFragment
        options.update(yaml.safe_load(getattr(imported, (variant or "documentation").upper())).get("options") or {})
    return options


def check_tasks(data):
    """Tasks: modules of ours exist and have such options, roles of ours such variables."""
    for _key, task in texts_of(data):
        imported = next((value for name, value in task.items() if str(name).rsplit(".", maxsplit=1)[-1] == "import_playbook"), "")
        for name, value in (task.get("vars") or {}).items() if imported.startswith(OURS) else ():
            check_variable(playbook_of(imported), name, None if templated(value) else value)
        for name, arguments in task.items():
            if not str(name).startswith(OURS) or name[len(OURS):] == "kvmfleet":
                continue
            module = name[len(OURS):]
            if module in MODULES and isinstance(arguments, dict):
                unknown = set(arguments) - set(documented(module))
                assert not unknown, "{0} has no {1}".format(module, ", ".join(sorted(unknown)))
        for role, entry in roles_of([task] if "hosts" not in task else []):
            given = {name: value for name, value in (task.get("vars") or {}).items() if name.startswith(role + "_")}
            assert set(given) <= set(specs(role)[entry]), "{0} has no {1}".format(role, sorted(set(given) - set(specs(role)[entry])))
            check_role_variables(role, entry, given)


@pytest.mark.parametrize("name,block", every(lambda page: [b for b in page.blocks if b.language in ("yaml", "yml")]))
def test_yaml_is_what_it_is_read_as(name, block):
    if block.text.startswith("#cloud-config"):
        assert isinstance(yaml.safe_load(block.text), dict)
        return
    for data in load(block.text):
        if isinstance(data, dict) and data.get("plugin") == PLUGIN:
            read_fleet_file("example.fleet.yml", block.text, vault=lambda option, text: "secret")
            continue
        check_variables(data)
        check_tasks(data)


@pytest.mark.parametrize("name,block", every(lambda page: [b for b in page.blocks if b.language == "json"]))
def test_json_is_json(name, block):
    json.loads(block.text)


# Keys of refusals

KEY = re.compile(r"^[a-z]+(?:_[a-z]+)*$")
# Put together at run time, or handed on by way of a loop
COMPOSED = {"arch", "firmware", "machine", "virt_type", "no_vcpus", "no_memory", "no_disk", "quota_vms", "quota_vcpus", "quota_memory", "quota_disk",
            "unknown_flavor", "unknown_address_pool", "unknown_region", "unknown_zone"}


def constants(node):
    """The texts that an expression may come to, where it is written as a choice between some."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) and KEY.match(node.value) else []
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in constants(value)]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("str", "getattr"):
        return [text for value in node.args[-1:] for text in constants(value)]
    return []


def parameters(trees):
    """Per name of a function or class of ours the place of its parameter C(code)."""
    places = {}
    for tree in trees:
        for node in ast.walk(tree):
            functions = [(node.name, node)] if isinstance(node, ast.FunctionDef) and node.name != "__init__" else []
            if isinstance(node, ast.ClassDef):
                functions = [(node.name, f) for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
                fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
                bases = {getattr(base, "id", "") for base in node.bases}
                if "code" in fields and "NamedTuple" in bases:
                    places[node.name] = fields.index("code")
            for name, function in functions:
                names = [a.arg for a in function.args.args if a.arg != "self"]
                if "code" in names:
                    places[name] = names.index("code")
    return places


def keys_in_the_source():
    """Every key that a refusal or a failure of ours may have."""
    trees = [ast.parse(path.read_text()) for path in sorted(ROOT.glob("plugins/**/*.py"))]
    places = dict(parameters(trees), Refusal=0)
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
                place = places.get(name)
                if place is not None and len(node.args) > place:
                    found.update(constants(node.args[place]))
                found.update(text for k in node.keywords if k.arg == "code" or (k.arg == "reason" and name != "missing_required_lib")
                             for text in constants(k.value))
            elif isinstance(node, ast.Assign):
                targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value] * len(targets)
                for target, value in zip(targets, values):
                    if getattr(target, "attr", "") in ("reason", "code") or getattr(target, "id", "") == "code":
                        found.update(constants(value))
            elif isinstance(node, ast.Dict):
                found.update(text for key, value in zip(node.keys, node.values) if getattr(key, "value", None) in ("reason", "code")
                             for text in constants(value))
            elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
                named = [a.arg for a in node.args.args]
                defaults = dict(zip(named[len(named) - len(node.args.defaults):], node.args.defaults))
                found.update(constants(defaults["code"]) if "code" in defaults else [])
    return found


def test_every_key_of_a_refusal_is_explained():
    documented = {}
    for line in PAGES["docs/reasons.md"].path.read_text().splitlines():
        row = re.match(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| (.+) \| (.+) \|$", line)
        for key in re.findall(r"`([a-z_]+)`", row.group(1)) if row else []:
            assert key not in documented, "{0} is there twice".format(key)
            documented[key] = row.group(3)
    missing = (keys_in_the_source() | COMPOSED) - set(documented)
    assert not missing, "docs/reasons.md needs a row for " + ", ".join(sorted(missing))
    gone = set(documented) - keys_in_the_source() - COMPOSED
    assert not gone, "docs/reasons.md explains what there is not: " + ", ".join(sorted(gone))
