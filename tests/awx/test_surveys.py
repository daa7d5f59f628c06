# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What awx_configure asks AWX for: AWX accepts it, the playbooks understand it, and no tenant is asked what reaches another group."""
from __future__ import annotations

import copy
import json
import os
import re
import subprocess

import pytest
import yaml
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvmfleet.core.plugins.action.vm_request import _matching
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _awx, _request, _variables
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host, with_shipped
from ansible_collections.kvmfleet.core.tests.awx import awx_rules
from ansible_collections.kvmfleet.core.tests.integration.playbook_runs import ROOT

CATALOGS = {
    "kvmfleet_images": {"debian:12": {}, "ops:1": {"admin_only": True}, "red:1": {"groups": ["red"]}},
    "kvmfleet_flavors": {"small": {"vcpus": 1, "memory": "1GiB"}, "large": {"vcpus": 8, "memory": "16GiB"}},
    "kvmfleet_networks": {"default": {}, "mgmt": {"admin_only": True}, "blue": {"groups": ["blue"]}},
    "kvmfleet_groups": {"red": {"description": "The reds"}, "blue": {}},
    "kvmfleet_storage_classes": {"ssd": {"pool": "fast"}, "nvme": {"pool": "faster", "groups": ["blue"]}},
}
HOSTS = [Host("kvm1", zone="east", region="eu"), Host("kvm2", zone="west", region="eu", groups=["blue"]), Host("kvm3", zone="ops", admin_only=True),
         Host("kvm4", zone="north", region="eu")]
SETTINGS = _awx.Settings("https://git.example.org/fleet.git", "ee:1", hosts=HOSTS)
PLAYBOOKS = sorted(name[:-len(".yml")] for name in os.listdir(os.path.join(ROOT, "playbooks")) if name.endswith(".yml"))


@pytest.fixture(scope="module")
def objects():
    return _awx.objects(SETTINGS, Catalogs(CATALOGS), CATALOGS)


def templates(objects, group=None):
    return [t for t in objects["controller_templates"] if t["extra_vars"].get("vm_group") == group]


def surveys(objects):
    return [(t, item) for t in objects["controller_templates"] for item in t.get("survey_spec", {}).get("spec", [])]


def name_of(template):
    return os.path.basename(template["playbook"])[:-len(".yml")]


def options(template):
    return _awx.options(name_of(template))


def test_every_playbook_has_a_template_or_a_reason_why_not(objects):
    assert sorted([*_awx.TEMPLATES, *_awx.NO_TEMPLATE]) == PLAYBOOKS, "decide whether a new playbook gets a template, and whether tenants get one"
    assert sorted(t["playbook"] for t in templates(objects)) == sorted("playbooks/{0}.yml".format(name) for name in _awx.TEMPLATES)


@pytest.mark.parametrize("page", ["README.md", "docs/awx.md"])
def test_the_calls_that_are_written_down_are_accepted(objects, page):
    """Each reaches a template of the group, which asks for all that it gives."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as stream:
        calls = re.findall(r"`launch (?:red:%20)?([^ ]*?)(?:\+\+kvmfleet)? '([^']*)'`", stream.read())
    assert len(calls) >= 5
    by_name = {template["name"]: template for template in templates(objects, "red")}
    for name, answers in calls:
        given = json.loads(answers)
        variables, ignored = awx_rules.launch(by_name["red: " + name.replace("%20", " ")], given)
        assert (ignored, variables["vm_group"]) == ([], "red") and given.items() <= variables.items()


def test_awx_accepts_it(objects):
    for template in objects["controller_templates"]:
        if template["survey_enabled"]:
            awx_rules.check_survey(template["survey_spec"])
    for made in objects["controller_credential_types"]:
        awx_rules.check_credential_type(made)
    for schedule in objects["controller_schedules"]:
        awx_rules.check_rrule(schedule["rrule"])
    for kind, listed in objects.items():
        names = [item.get("name") for item in listed]
        assert kind == "controller_roles" or len(set(names)) == len(names), kind


def test_every_question_is_a_variable_of_its_playbook_with_its_type_bounds_and_choices(objects):
    kinds = {"int": {"integer"}, "bool": {"multiplechoice"}, "str": {"text", "textarea", "multiplechoice"}, "list": {"text"}, "dict": {"text"},
             "raw": {"textarea"}}
    for template, item in surveys(objects):
        option = options(template)[item["variable"]]
        assert item["type"] in kinds[option.get("type", "str")], item
        if option.get("type") == "int":
            assert (item["min"], item.get("max")) == _variables.bounds(item["variable"])
        source = _awx.QUESTIONS[item["variable"]].choices
        offered = [choice for choice in item.get("choices", ()) if choice != _variables.NOT_GIVEN]
        if option.get("choices"):
            deletes = {"absent", "restarted"} if template["playbook"].endswith("/create_vm.yml") and item["variable"] == "vm_state" else set()
            assert offered == [choice for choice in option["choices"] if choice not in deletes]
        elif option.get("type") == "bool":
            declared = name_of(template) == "converge_fleet"  # where nothing is chosen what the file says holds
            assert offered == ["true", "false"] and item["default"] == (_variables.NOT_GIVEN if declared else str(option["default"]).lower())
        elif source and not isinstance(source, str):
            assert offered == list(source)
            for choice in offered:
                _request.constraints(_variables.read("create", {"vm_name": "web", item["variable"]: choice}))
        elif source:
            known = set(CATALOGS.get(source, [])) | {str(getattr(host, key)) for host in HOSTS for key in ("name", "zone", "region")}
            assert set(item["choices"]) <= known | {_variables.NOT_GIVEN}
        if option.get("required"):
            assert item["required"] or item["variable"] in _awx.TEMPLATES[name_of(template)].optional
        if option.get("default") is not None and option["type"] in ("int", "str"):
            assert item.get("default") == option["default"]


def test_what_a_playbook_requires_is_asked(objects):
    for template in objects["controller_templates"]:
        asked = {item["variable"] for item in template.get("survey_spec", {}).get("spec", [])} | set(template["extra_vars"])
        assert {name for name, option in options(template).items() if option.get("required")} <= asked, template["name"]


def test_questions_come_in_the_order_in_which_a_person_decides(objects):
    create = next(t for t in templates(objects, "red") if t["playbook"] == "playbooks/create_vm.yml")
    asked = [item["variable"] for item in create["survey_spec"]["spec"]]
    assert asked == ["vm_image", "vm_flavor", "vm_disk", "vm_storage_class", "vm_network", "vm_name", "vm_count", "vm_namespace", "vm_ssh_key", "vm_zone",
                     "vm_host", "vm_spread", "vm_user_data"]
    more = [item["variable"] for item in next(t for t in templates(objects) if t["playbook"] == "playbooks/create_vm.yml")["survey_spec"]["spec"]]
    assert [name for name in more if name in asked] == asked
    assert set(more) - set(asked) == {"vm_group", "vm_state", "vm_labels", "vm_ip", "vm_anti_affinity", "vm_packages", "vm_wait", "vm_reserve_failures"}


def test_what_is_asked_is_said_in_plain_words(objects):
    """Who sees a survey sees no variables, and each word is for the verb that it is about."""
    for template, item in surveys(objects):
        words = "{question_name} {question_description}".format(**item)
        assert not re.search(r"\b(vm|kvm|kvmfleet|base_image)_|[A-Z]\(|-e |=true|template|rolespec", words), (template["name"], words)
        assert item["question_description"].endswith(".") and len(item["question_description"]) <= 160, words
        makes = template["playbook"].endswith(("/create_vm.yml", "/scale_vm.yml"))
        assert makes or not re.search(r"is made|is found|made or fetched", words), (template["name"], words)


def test_images_come_in_the_order_in_which_one_looks_for_them():
    raw = {"kvmfleet_images": {"web:3": {}, "app:1": {"source": "build", "suite": "bookworm"}}, "kvmfleet_groups": {"red": {}}}
    made = _awx.objects(SETTINGS, Catalogs(with_shipped(raw, None)), raw)
    for group in (None, "red"):
        create = next(t for t in templates(made, group) if t["playbook"] == "playbooks/create_vm.yml")
        images = next(item for item in create["survey_spec"]["spec"] if item["variable"] == "vm_image")["choices"]
        assert images[:5] == ["app:1", "web:3", "debian:12", "debian:13", "almalinux:8"] and "debian:12-official" in images[5:]


def test_default_answers_are_understood_by_the_playbook(objects):
    """Every survey answered with nothing but what is required comes through the playbooks' door."""
    answers = {"vm_name": "web", "vm_image": "debian:12", "vm_flavor": "small", "vm_ssh_key": "none", "vm_action": "start"}
    for template in objects["controller_templates"]:
        _title, role, entry = _awx.playbook(name_of(template))
        needed = {i["variable"]: answers[i["variable"]] for i in template.get("survey_spec", {}).get("spec", []) if i["required"]}
        variables, _ignored = awx_rules.launch(template, needed)
        if role == "vm":
            _variables.refuse_unknown(variables)
            values = _variables.read(entry, variables)
            assert all(value != _variables.NOT_GIVEN for value in values.values())
            assert values.get("vm_group") == template["extra_vars"].get("vm_group")


# -- tenants ------------------------------------------------------------------------------------------------------------------------------


def test_each_group_has_an_organization_a_team_and_templates_that_it_may_execute_and_no_more(objects):
    assert [o["name"] for o in objects["controller_organizations"]] == ["kvmfleet", "blue", "red"]
    assert {t["organization"] for t in objects["controller_teams"]} == {"red", "blue"}
    assert {role["role"] for role in objects["controller_roles"]} == {"execute"}
    for role in objects["controller_roles"]:
        group = next(t["organization"] for t in objects["controller_teams"] if t["name"] == role["team"])
        assert sorted(role["job_templates"]) == sorted(t["name"] for t in templates(objects, group))
        assert {t["playbook"] for t in templates(objects, group)} == {
            "playbooks/{0}.yml".format(name) for name, template in _awx.TEMPLATES.items() if template.tenants}


def test_a_tenant_can_change_nothing_but_the_answers(objects):
    for group in ("red", "blue"):
        for template in templates(objects, group):
            free = {key for key, value in template.items() if key.startswith("ask_") and value}
            assert free <= {"ask_job_type_on_launch", "ask_diff_mode_on_launch"}, template["name"]
            variables, ignored = awx_rules.launch(
                template, dict({i["variable"]: i["choices"][0] if "choices" in i else "x" for i in template.get("survey_spec", {}).get("spec", [])
                                if i["required"]}, vm_group="other", ansible_connection="local", vm_disks="[{volume: x}]", vm_adopt="true"))
            assert variables["vm_group"] == group
            assert ignored == ["ansible_connection", "vm_adopt", "vm_disks", "vm_group"]
            assert "vm_group" in options(template), "pinning it would mean nothing"


def test_a_tenant_is_offered_only_what_the_group_may_use(objects):
    offered = {group: {item["variable"]: set(item["choices"]) - {"-"} for t in templates(objects, group) for item in t["survey_spec"]["spec"]
                       if item["type"] == "multiplechoice"} for group in ("red", "blue")}
    assert offered["red"]["vm_image"] == {"debian:12", "red:1"} and offered["blue"]["vm_image"] == {"debian:12"}
    assert offered["red"]["vm_network"] == {"default"} and offered["blue"]["vm_network"] == {"default", "blue"}
    assert offered["red"]["vm_host"] == {"kvm1", "kvm4"} and offered["blue"]["vm_host"] == {"kvm1", "kvm2", "kvm4"}
    assert offered["red"]["vm_zone"] == {"east", "north"} and offered["blue"]["vm_zone"] == {"east", "north", "west"}
    assert offered["red"]["vm_storage_class"] == {"ssd"} and offered["blue"]["vm_storage_class"] == {"ssd", "nvme"}
    # A text instead of choices could name what is not in the catalogs.
    bare = _awx.survey("create_vm", Catalogs({"kvmfleet_groups": {"red": {}}}), (), "red")
    assert not [item for item in bare if isinstance(_awx.QUESTIONS[item["variable"]].choices, str) and _awx.QUESTIONS[item["variable"]].choices]


def test_a_tenant_is_not_asked_what_reaches_further_than_the_group(objects):
    """Disks that stay do not count for the quota, and a label is looked for among the VMs of all groups."""
    for group in ("red", "blue"):
        asked = {item["variable"] for template in templates(objects, group) for item in template["survey_spec"]["spec"]}
        assert not asked & {"vm_delete_disks", "vm_anti_affinity", "vm_affinity", "vm_ip", "vm_managed_only", "vm_reserve_failures", "vm_scale_down"}


NAMES = st.text(alphabet="abrl.*?[]!-ed" + "u", min_size=1, max_size=20)
VMS = [{"name": ".".join([short, namespace, group] if group else [short]), "group": group, "namespace": group and namespace, "labels": {}}
       for group in (None, "red", "blue") for namespace in ("default", "red") for short in ("a", "red", "bl")]


@given(NAMES, st.none() | NAMES, st.sampled_from(["delete", "power"]))
def test_no_name_or_pattern_means_a_vm_of_another_group(name, namespace, entry):
    given = {"vm_name": name, "vm_group": "red", "vm_namespace": namespace, "vm_action": "start"}
    try:
        selection = _request.select(_variables.read(entry, given))
    except SpecError:
        return
    assert all(full.endswith(".red") for full in selection.names)
    chosen = _matching(VMS, selection)
    assert {vm["group"] for vm in VMS if vm["name"] in chosen} <= {"red"}


@given(NAMES, st.none() | NAMES)
def test_what_a_tenant_creates_belongs_to_the_group(name, namespace):
    values = _variables.read("create", {"vm_name": name, "vm_group": "red", "vm_namespace": namespace})
    try:
        names = _request.domain_names(values, str(values["vm_name"]))
    except SpecError:
        return
    assert all(full.endswith(".red") and full.count(".") == 2 for full, _label, _index in names)


@pytest.mark.parametrize("variable, value", [("vm_user_data", "/runner/env/ssh_key"), ("vm_user_data", "key"), ("vm_ssh_key", "/etc/passwd"),
                                             ("vm_ssh_key", "~/.ssh/id"), ("vm_ssh_key", "ssh-ed25519 AAAA x\n../k.pub")])
def test_answers_read_no_files_of_the_job(variable, value):
    with pytest.raises(SpecError) as told:
        _request.refuse_files({variable: value})
    assert told.value.code == "not_allowed" and "/runner" not in str(told.value)
    _request.refuse_files({"vm_user_data": "#cloud-config\n{}", "vm_ssh_key": "ssh-ed25519 AAAA x\nnone"})


# -- the way to the hosts -----------------------------------------------------------------------------------------------------------------


def effective(words):
    """What OpenSSH makes of the options among the words of a command line of ssh, sftp or scp."""
    options = [word for flag, word in zip(words, words[1:]) if flag == "-o"]
    told = subprocess.run(["ssh", "-F", "none", "-G", *(word for option in options for word in ("-o", option)), "kvm1.example.org"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return dict(line.partition(" ")[::2] for line in told.splitlines())


@pytest.mark.parametrize("common", [None, "-o ProxyJump=ops@bastion.example.org:2222"])
@pytest.mark.parametrize("program", ["ssh", "sftp", "scp"])
def test_a_way_of_the_sites_own_is_kept_and_the_host_key_is_checked(monkeypatch, tmp_path, common, program):
    """What ansible's own connection plugin makes of the credential's variables, which beat all others, and those of the inventory, and OpenSSH of that."""
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")  # as AWX has it
    made = next(item for item in _awx.CREDENTIAL_TYPES if item["name"] == _awx.HOSTS_CREDENTIAL_TYPE)
    _env, injected = awx_rules.inject(made, {"ssh_key": "k", "known_hosts": "h"}, tmp_path)
    connection = connection_loader.get("ssh", PlayContext(), None)
    connection.host = "kvm1.example.org"
    connection.set_options(var_options=dict({"ansible_host": "kvm1.example.org", "ansible_ssh_common_args": common} if common else {}, **injected))
    words = [word.decode() for word in connection._build_command(program, program, "kvm1.example.org")]
    found = effective(words)
    assert found["stricthostkeychecking"] == "true" and found["userknownhostsfile"] == str(tmp_path / "credential-template.known_hosts")
    assert found["identityfile"] == str(tmp_path / "credential-template.ssh_key")
    assert found.get("proxyjump", "none") == ("ops@bastion.example.org:2222" if common else "none")


# -- files and faults ---------------------------------------------------------------------------------------------------------------------


def test_what_is_given_wins_by_name_and_is_added(objects):
    made = copy.deepcopy(objects)
    merged = _awx.merged(made, {"controller_projects": [{"name": "kvmfleet", "scm_branch": "v1"}, {"name": "other"}],
                                "controller_notifications": [{"name": "ops"}, {"name": "reds", "organization": "red"}]})
    assert [p["name"] for p in merged["controller_projects"]] == ["kvmfleet", "other"]
    assert merged["controller_projects"][0]["scm_branch"] == "v1" and merged["controller_projects"][0]["scm_url"] == SETTINGS.project_url
    _awx.notify(merged, SETTINGS)
    assert {tuple(t.get("notification_templates_error", ())) for t in templates(merged)} == {("ops",)}
    assert {tuple(t.get("notification_templates_error", ())) for t in templates(merged, "red")} == {("reds",)}
    assert not any("notification_templates_error" in t for t in templates(merged, "blue"))
    assert merged["controller_projects"][0]["notification_templates_error"] == ["ops"]
    for wrong in ("text", [{"organization": "x"}], ["x"]):
        with pytest.raises(SpecError, match="controller_projects"):
            _awx.merged({}, {"controller_projects": wrong})


def test_who_is_told_of_jobs():
    mail = {"host": "mail.example.org", "sender": "awx@example.org", "recipients": ["ops@example.org"], "password": None}
    settings = _awx.Settings("u", "e", hosts=HOSTS, notifications=[
        {"name": "operators", "mail": mail},
        {"name": "chat", "events": ["success", "started"], "groups": ["red", "blue"], "webhook": {"url": "https://x.example.org"}},
        {"name": "reds", "events": ["error", "success"], "groups": ["red"], "mail": dict(mail, use_tls=True, password="s3cret")}])
    made = _awx.objects(settings, Catalogs(CATALOGS), CATALOGS)
    _awx.notify(made, settings)
    notes = {note["name"]: note for note in made["controller_notifications"]}
    assert {name: note["organization"] for name, note in notes.items()} == {
        "kvmfleet: operators": "kvmfleet", "red: chat": "red", "blue: chat": "blue", "red: reds": "red"}
    assert notes["kvmfleet: operators"]["notification_type"] == "email" and notes["red: chat"]["notification_type"] == "webhook"
    # All that AWX wants to have of one, with the type that it wants.
    kinds = {"email": {"host": str, "port": int, "username": str, "password": str, "use_tls": bool, "use_ssl": bool, "sender": str, "recipients": list,
                       "timeout": int},
             "webhook": {"url": str, "http_method": str, "disable_ssl_verification": bool, "username": str, "password": str, "headers": dict}}
    for note in notes.values():
        assert {key: type(value) for key, value in note["notification_configuration"].items()} == kinds[note["notification_type"]]

    def told(item):
        return {event: item.get("notification_templates_" + event, []) for event in _awx.EVENTS}
    operators = {"error": ["kvmfleet: operators"], "success": [], "started": []}
    for item in templates(made) + made["controller_projects"] + made["controller_inventory_sources"]:
        assert told(item) == operators
    for item in templates(made, "red"):
        assert told(item) == {"error": ["red: reds"], "success": ["red: chat", "red: reds"], "started": ["red: chat"]}
    for item in templates(made, "blue"):
        assert told(item) == {"error": [], "success": ["blue: chat"], "started": ["blue: chat"]}


@pytest.mark.parametrize("given, option", [({}, "awx_configure_notifications.x"), ({"mail": {"host": "h", "sender": "s"}}, "x.mail.recipients"),
                                           ({"webhook": {"url": "u"}, "mail": {"host": "h"}}, "awx_configure_notifications.x"),
                                           ({"webhook": {"url": "u"}, "groups": ["reed"]}, "Perhaps red was meant")])
def test_faults_of_notifications_are_told(given, option):
    with pytest.raises(SpecError, match=option):
        _awx.objects(_awx.Settings("u", "e", notifications=[dict(given, name="x")]), Catalogs(CATALOGS), CATALOGS)


def test_jobs_that_read_the_fleet_file_get_its_vault():
    made = _awx.objects(_awx.Settings("u", "e", vault_credential="fleet vault"), Catalogs(CATALOGS), CATALOGS)
    assert [t["playbook"] for t in made["controller_templates"] if "fleet vault" in t["credentials"]] == ["playbooks/converge_fleet.yml"]
    # AWX refuses credentials of the type Vault here.
    assert made["controller_inventory_sources"][0]["credential"] == "kvmfleet hosts"


def test_what_changes_in_the_repository_arrives(objects):
    project, = objects["controller_projects"]
    assert project["scm_update_on_launch"] is True and 0 < project["scm_update_cache_timeout"] <= 300 and project["update_project"] is True


def test_an_organization_of_operators_is_no_group():
    with pytest.raises(SpecError, match="awx_configure_organization"):
        _awx.objects(_awx.Settings("u", "e", organization="red"), Catalogs(CATALOGS), CATALOGS)


def test_files_read_back_as_they_were_without_secrets(objects):
    class Loader(yaml.SafeLoader):
        pass
    Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    secret = _awx.objects(_awx.Settings("u", "e", ssh_key="PRIVATE", known_hosts="kvm1 x"), Catalogs(CATALOGS), CATALOGS)
    for kind, listed in secret.items():
        text = _awx.as_file(kind, listed)
        assert "PRIVATE" not in text
        if kind != "controller_credentials":
            assert yaml.load(text, Loader=Loader) == {kind: listed}
        # What Ansible would resolve is marked.
        assert not [line for line in text.splitlines() if "{{" in line and "!unsafe" not in line]
