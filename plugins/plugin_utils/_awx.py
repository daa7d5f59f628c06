# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX has to have for a fleet, in the variables that configuration-as-code tools read: made of the catalogs and of the playbooks' argument specs.

Surveys are made by rule: a template asks those of QUESTIONS that its playbook's argument spec has, in that order. No I/O but the collection's own files.
"""
from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

import yaml

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils._catalogs import Catalogs, Host, check_allowed
from ansible_collections.kvmfleet.core.plugins.plugin_utils._variables import NOT_GIVEN, bounds, nearest, to_dict

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# In the order in which they have to be made.
KINDS = ("controller_credential_types", "controller_organizations", "controller_teams", "controller_credentials", "controller_execution_environments",
         "controller_notifications", "controller_projects", "controller_inventories", "controller_inventory_sources", "controller_templates",
         "controller_schedules", "controller_roles")
CATALOGS = ("kvmfleet_images", "kvmfleet_flavors", "kvmfleet_networks", "kvmfleet_storage_classes", "kvmfleet_groups", "kvmfleet_ip_pools")


@dataclass(frozen=True)
class Question:
    """A question that surveys may ask, in words of somebody who knows neither Ansible nor the variables.

    :param label: the question
    :param description: what there is to know for an answer; a mapping has it by entry point, and under the empty text for the others
    :param choices: a catalog, or C(hosts), C(zones) or C(regions), whose names are the choices; or the choices themselves, where the variable can be more
    :param lines: whether the answer may have several lines
    :param tenants: whether tenants are asked, whose answers may reach nothing of another group and get round no quota
    """

    label: str
    description: Union[str, Mapping[str, str]]
    choices: Union[str, Sequence[str]] = ""
    lines: bool = False
    tenants: bool = True

    def words(self, entry: str) -> str:
        """The description at an entry point."""
        return self.description if isinstance(self.description, str) else self.description.get(entry, self.description.get("", ""))


_SHOWN_BY = dict(dict.fromkeys(("create", "scale", "delete", "power"), "Whose they are. Not chosen: the operators'."),
                 **{"list": "Only those of this group.", "": "As this group sees it: what it may use, and what is left of its quota."})
_WHERE = dict(dict.fromkeys(("create", "scale"), "Only hosts there are used."), **{"": "Only what is there."})
# In the order in which a person decides.
QUESTIONS: Dict[str, Question] = {
    "vm_group": Question("Group", _SHOWN_BY, "kvmfleet_groups", tenants=False),
    "base_image_name": Question("Image", "Not chosen: all images of the site's own catalog.", "kvmfleet_images"),
    "vm_image": Question("Image", "What it starts from. An image that a host lacks is made or fetched first.", "kvmfleet_images"),
    "vm_flavor": Question("Flavor", "How large it is: processors, memory, disk.", "kvmfleet_flavors"),
    "vm_disk": Question("Size of the disk", "With a unit, such as 20GiB. Left empty: as the flavor says."),
    "vm_storage_class": Question("Storage", "Not chosen: what the host uses for everything.", "kvmfleet_storage_classes"),
    "vm_network": Question("Network", "Not chosen: the network of the group, else the one called default.", "kvmfleet_networks"),
    "vm_name": Question("Name", {
        "create": "Letters from a to z, digits and hyphens, such as web. The VMs of a set are called web-1, web-2 and so on.",
        "scale": "Of the set, without the number: web where they are called web-1, web-2 and so on.",
        "list": "One or more, separated by commas; patterns such as web-* are possible. Left empty: all.",
        "": "One or more, separated by commas; patterns such as web-* are possible."}),
    "vm_count": Question("Number of VMs in the set", {
        "create": "Left empty: one VM. With a number, also with 1, a set is made that can grow and shrink later.",
        "scale": "How many it shall have. Left empty: it goes in the direction that is chosen below.",
        "": "With a number, the name is that of a set, and its first so many VMs are meant. Left empty: the name is the VM's own."}),
    "vm_namespace": Question("Namespace in the group", {
        "create": "A part of the group, in which names are its own. Left empty: default.",
        "scale": "The part of the group that the set is in. Left empty: default.",
        "list": "Only this part of the group.",
        "": "The part of the group that they are in. Left empty: default, and for a pattern every one."}),
    "vm_direction": Question("Direction", "Makes the set larger or smaller by the number below, within the bounds. Not chosen: by the number above."),
    "vm_step": Question("How many VMs more or less", "For a direction."),
    "vm_min": Question("Never less than", "The set does not get smaller than this."),
    "vm_max": Question("Never more than", "The set does not get larger than this. Needed for the direction up."),
    "vm_cooldown": Question("Seconds after which a set may be scaled again", "For a direction: so long after the last time nothing is done. 0 for at once."),
    "vm_alert": Question("Alerts that ask for it", "What has been acted on does not act again. For rulebooks; a person leaves it empty."),
    "vm_action": Question("What to do", "shutdown and reboot ask the guest; force_off and reset are the power and the reset button."),
    "vm_state": Question("State", {"list": "Only those in this state.", "": "In which they are afterwards."}),
    "vm_labels": Question("Labels", {"create": "To find them by: key=value, more than one separated by commas.",
                                     "": "Only those with these labels: key=value, more than one separated by commas."}),
    "vm_ssh_key": Question("Public SSH key", "What opens the VM; more than one, one a line. none for no key.", lines=True),
    "vm_ip": Question("Address", "A fixed one; of a set that of its first VM. Left empty: from the network's pool, else by DHCP.", tenants=False),
    "vm_region": Question("Region", _WHERE, "regions"),
    "vm_zone": Question("Zone", _WHERE, "zones"),
    "vm_host": Question("Host", {"create": "Not chosen: one with room is found.", "scale": "Of new ones. Not chosen: one with room is found.",
                                 "": "Only those on this host."}, "hosts"),
    "vm_spread": Question("Spread over", "What the VMs of a set are spread over, as evenly as there is room.", ("host", "zone", "region")),
    # A label is looked for among the VMs of all groups.
    "vm_anti_affinity": Question("Keep away from", "Names of VMs, or labels as key=value, separated by commas: no host gets one of them as well.",
                                 tenants=False),
    "vm_user_data": Question("User data for cloud-init", "Beginning with #cloud-config, or a script.", lines=True),
    "vm_packages": Question("Packages to install", "By cloud-init; separated by commas."),
    "vm_allow_other_seed": Question("Make VMs that lack what else the set's first one got",
                                    "What it got at its first boot is not kept: keys, packages, scripts."),
    "vm_wait": Question("What to wait for", "An address, ssh, or the end of cloud-init. Not chosen: an address, where something is to start."),
    "vm_scale_down": Question("Delete VMs beyond the number", "Sets that are larger than what is declared shrink. More than one VM has to be confirmed below."),
    # What stays does not count for the group's quota.
    "vm_delete_disks": Question("Delete the disks too", "Disks that were not made with the VM always stay.", tenants=False),
    "vm_confirm": Question("Confirm the number of VMs that are to go", "Needed for more than one. Left empty, the job says how many it would be."),
    "base_image_confirm": Question("Confirm the number of images that are to go", "Left empty, the job only says which."),
    "base_image_prune_all": Question("Images of the catalog too", "Otherwise only those that the catalog does not have. What anything needs always stays."),
    "vm_shutdown_timeout": Question("Seconds that a guest has to shut down", "For the action shutdown: how long it is waited for."),
    "vm_force": Question("Turn off hard a guest that does not shut down", "Otherwise the job fails, and the guest goes on."),
    "vm_managed_only": Question("Only VMs made by this collection", "Otherwise whatever else is on the hosts is shown too.", tenants=False),
    "vm_reserve_failures": Question("Hosts that may fail", "With 1, room is kept so that the VMs of any one host fit on the others.", tenants=False),
}
# With vm_state create_vm can delete too; that is the template of delete_vm, as smaller sets are that of scale_vm. New members of a set are like the first.
_UNASKED = {"scale": ("vm_state", "vm_image", "vm_flavor", "vm_network", "vm_ip", "vm_labels", "vm_shutdown_timeout", "vm_disk",
                      "vm_storage_class", "vm_spread", "vm_anti_affinity"),
            "create": ("vm_confirm", "vm_delete_disks", "vm_shutdown_timeout", "vm_force", "vm_scale_down")}
# Tenants decide what it is, how many and where; how it is done is the operators' to say.
_UNASKED_OF_TENANTS = {"create": ("vm_state", "vm_labels", "vm_packages", "vm_wait"), "scale": ("vm_wait",)}
_CHOICES = {("create", "vm_state"): ("present", "running", "stopped", "paused")}


@dataclass(frozen=True)
class Template:
    """The job templates of a playbook.

    :param tenants: whether each group gets one, with the group pinned; only for playbooks that look at nothing but what the group may see
    :param required: questions that have to be answered although the variable has a default
    :param optional: questions that need no answer, because the playbook has one where the role has not
    :param become: whether it needs root on the hosts
    :param limit: whether one is asked which hosts it is for
    :param variables: variables that are different in AWX
    """

    tenants: bool = False
    required: Tuple[str, ...] = ()
    optional: Tuple[str, ...] = ()
    become: bool = False
    limit: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


TEMPLATES: Dict[str, Template] = {
    "create_vm": Template(tenants=True, required=("vm_image", "vm_flavor", "vm_ssh_key")),
    "delete_vm": Template(tenants=True, required=("vm_name",)),
    "scale_vm": Template(tenants=True),
    "power_vm": Template(tenants=True, required=("vm_name",)),
    "list_vms": Template(tenants=True),
    "capacity": Template(tenants=True),
    "list_hosts": Template(tenants=True),
    "list_images": Template(tenants=True),
    "list_flavors": Template(tenants=True),
    "list_networks": Template(tenants=True),
    "fleet_page": Template(variables={"fleet_page_artifact": True}),  # a file would be lost with the job
    "converge_fleet": Template(),
    "base_image": Template(optional=("base_image_name",), become=True, limit=True),
    "prune_images": Template(become=True),
    "setup_hosts": Template(become=True, limit=True),
    "host_networks": Template(become=True, limit=True),
}
NO_TEMPLATE = {"awx_configure": "it configures AWX itself, by whoever administers it"}

HOSTS_CREDENTIAL_TYPE = "kvmfleet hosts"
GUESTS_CREDENTIAL_TYPE = "kvmfleet guests"
CREDENTIAL_TYPES: List[Dict[str, Any]] = [
    {
        "name": HOSTS_CREDENTIAL_TYPE, "kind": "cloud",
        "description": "The SSH key that opens the KVM hosts, for Ansible (ssh) and for the inventory (qemu+ssh)",
        "inputs": {
            "fields": [
                {"id": "ssh_key", "label": "Private SSH key", "type": "string", "format": "ssh_private_key", "secret": True, "multiline": True,
                 "help_text": "Without a passphrase; nobody is there to type it"},
                {"id": "known_hosts", "label": "Host keys", "type": "string", "multiline": True,
                 "help_text": "Lines of a known_hosts file, as ssh-keyscan prints them. Other hosts are refused"},
            ],
            "required": ["ssh_key", "known_hosts"],
        },
        "injectors": {
            "file": {"template.ssh_key": "{{ ssh_key }}", "template.known_hosts": "{{ known_hosts }}"},
            # AWX allows no variables that begin with ANSIBLE_. The inventory plugin reads these.
            "env": {"KVMFLEET_SSH_KEY_FILE": "{{ tower.filename.ssh_key }}", "KVMFLEET_SSH_KNOWN_HOSTS": "{{ tower.filename.known_hosts }}"},
            "extra_vars": {
                "ansible_ssh_private_key_file": "{{ tower.filename.ssh_key }}",
                "ansible_host_key_checking": "true",  # AWX turns it off
                # Not ansible_ssh_common_args: that is where the site's own variables say how to get to a host (ProxyJump), and an extra variable beats them.
                **{"ansible_{0}_extra_args".format(program): "-o UserKnownHostsFile={{ tower.filename.known_hosts }} -o StrictHostKeyChecking=yes"
                   for program in ("ssh", "sftp", "scp")},
            },
        },
    },
    {
        "name": GUESTS_CREDENTIAL_TYPE, "kind": "cloud",
        "description": "Secrets that new guests get by cloud-init",
        "inputs": {
            "fields": [
                {"id": "root_password", "label": "Password of root", "type": "string", "secret": True, "help_text": "Plain, or a crypt hash"},
                {"id": "users", "label": "Users", "type": "string", "secret": True, "multiline": True,
                 "help_text": "Further users with their passwords and keys: the variable vm_users, as YAML"},
            ],
        },
        "injectors": {"extra_vars": {"vm_root_password": "{{ root_password }}", "vm_users": "{{ users }}"}},
    },
]


@dataclass
class Settings:
    """What the catalogs do not tell.

    :param organization: of the operators, to which all but the tenants' organizations belongs
    :param refresh_minutes: how often the inventory is read anew; 0 for no schedule
    :param ssh_key: private key for the hosts; without it the credential C(credential) has to be there
    :param vault_credential: of AWX's own type Vault, for what the fleet file has encrypted
    :param notifications: who is told of jobs - C(name), C(events), C(groups), and C(mail) or C(webhook)
    """

    project_url: str
    ee_image: str
    organization: str = "kvmfleet"
    project_branch: str = ""
    project_credential: str = ""
    fleet_file: str = "fleet.yml"
    credential: str = "kvmfleet hosts"
    ssh_key: str = ""
    known_hosts: str = ""
    guest_credential: str = ""
    vault_credential: str = ""
    galaxy_credential: str = "Ansible Galaxy"
    forks: int = 50
    refresh_minutes: int = 15
    notifications: Sequence[Mapping[str, Any]] = ()
    hosts: Sequence[Host] = field(default_factory=tuple)


@functools.lru_cache(maxsize=None)
def playbook(name: str) -> Tuple[str, str, str]:
    """Title of a playbook's play, and the role and entry point that are all of it."""
    with open(os.path.join(_ROOT, "playbooks", name + ".yml"), encoding="utf-8") as stream:
        play = yaml.safe_load(stream)[0]
    for task in play["tasks"]:
        for action in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
            if action in task:
                return str(play["name"]), str(task[action]["name"]).rpartition(".")[2], str(task[action].get("tasks_from", "main"))
    raise ValueError("{0} calls no role".format(name))


@functools.lru_cache(maxsize=None)
def options(name: str) -> Dict[str, Dict[str, Any]]:
    """The variables of a playbook, as its role's argument spec has them."""
    _title, role, entry = playbook(name)
    with open(os.path.join(_ROOT, "roles", role, "meta", "argument_specs.yml"), encoding="utf-8") as stream:
        specs: Dict[str, Any] = yaml.safe_load(stream)["argument_specs"]
    return dict(specs[entry]["options"])


def usable(catalogs: Catalogs, catalog: str, group: Optional[str]) -> List[str]:
    """The names of a catalog that a group may use; all of them for operators, who may act for any group."""
    names = []
    for name in catalogs.names(catalog):
        try:
            entry = catalogs.entry(catalog, name)
            if group is not None:
                check_allowed(entry, catalog, name, group)
        except SpecError as exc:
            if exc.code != "not_allowed":
                raise
            continue
        names.append(name)
    return sorted(names)


def _images(names: Iterable[str], catalogs: Catalogs, own: Collection[str]) -> List[str]:
    """Images in the order in which one looks for them: the site's own, then those that are built here, then what is fetched from elsewhere."""
    return sorted(names, key=lambda name: (name not in own, catalogs.entry("kvmfleet_images", name).get("source") != "build", name))


def _choices(source: str, catalogs: Catalogs, hosts: Iterable[Host], group: Optional[str], own: Collection[str]) -> List[str]:
    if source in CATALOGS:
        names = usable(catalogs, source, group)
        return _images(names, catalogs, own) if source == "kvmfleet_images" else names
    open_to = [host for host in hosts if group is None or not (host.admin_only or (host.groups and group not in host.groups))]
    attribute = {"hosts": "name", "zones": "zone", "regions": "region"}[source]
    return sorted({str(getattr(host, attribute)) for host in open_to if getattr(host, attribute)})


def question(entry: str, variable: str, option: Mapping[str, Any], required: bool, choices: Optional[Sequence[str]] = None) -> Dict[str, Any]:
    """A question of a survey. Where nothing has to be chosen, C(NOT_GIVEN) can be: AWX knows no empty choice.

    :param entry: the entry point of its role
    :param option: the variable's argument spec
    :param choices: instead of those that the variable has by itself
    """
    asked = QUESTIONS[variable]
    made: Dict[str, Any] = {"variable": variable, "question_name": asked.label, "question_description": asked.words(entry), "required": required}
    default = option.get("default") if entry != "converge_fleet" else None  # not chosen is as the file says
    kind = option.get("type", "str")
    listed = ["true", "false"] if kind == "bool" else list(choices if choices is not None else option.get("choices") or [])
    if listed:
        given = str(default).lower() if isinstance(default, bool) else default
        free = not required and given is None
        made.update(type="multiplechoice", choices=([NOT_GIVEN] if free else []) + listed)
        if free or given is not None:
            made["default"] = NOT_GIVEN if free else given
    elif kind == "int":
        low, high = bounds(variable)
        made.update(type="integer", min=low)
        if high is not None:
            made["max"] = high
        if default is not None:
            made["default"] = default
    else:
        made["type"] = "textarea" if asked.lines else "text"
    return made


def survey(name: str, catalogs: Catalogs, hosts: Sequence[Host] = (), group: Optional[str] = None, own_images: Collection[str] = ()) -> List[Dict[str, Any]]:
    """The questions of a playbook's template, for operators or for a group.

    :param own_images: those of the site's own catalog
    """
    template, spec = TEMPLATES[name], options(name)
    entry = playbook(name)[2]
    unasked = _UNASKED.get(entry, ()) + (_UNASKED_OF_TENANTS.get(entry, ()) if group is not None else ())
    made = []
    for variable, asked in QUESTIONS.items():
        if variable not in spec or variable in unasked or (group is not None and not asked.tenants):
            continue
        choices: Optional[Sequence[str]] = _CHOICES.get((entry, variable))
        if isinstance(asked.choices, str) and asked.choices:
            choices = _choices(asked.choices, catalogs, hosts, group, own_images)
            if not choices and (group is not None or asked.choices == "kvmfleet_groups"):
                continue  # a free text could name what is nobody's to offer
            if len(choices) == 1 and asked.choices in ("zones", "regions"):
                continue  # nothing to decide
            choices = choices or None
        elif asked.choices:
            choices = asked.choices
        required = bool(spec[variable].get("required") or variable in template.required) and variable not in template.optional
        made.append(question(entry, variable, spec[variable], required, choices))
    return made


def _template(name: str, settings: Settings, catalogs: Catalogs, own_images: Collection[str], group: Optional[str] = None) -> Dict[str, Any]:
    template = TEMPLATES[name]
    title, _role, entry = playbook(name)
    questions = survey(name, catalogs, settings.hosts, group, own_images)
    credentials = [settings.credential]
    if settings.guest_credential and entry in ("create", "scale"):
        credentials.append(settings.guest_credential)
    if settings.vault_credential and "kvmfleet_file" in options(name):
        credentials.append(settings.vault_credential)
    made: Dict[str, Any] = {
        "name": "{0}: {1}".format(settings.organization if group is None else group, title),
        "description": "playbooks/{0}.yml{1}".format(name, "" if group is None else " for group {0} only".format(group)),
        # AWX takes it from the project; the module needs it to find the template again.
        "organization": settings.organization, "job_type": "run", "inventory": settings.organization, "project": settings.organization,
        "playbook": "playbooks/{0}.yml".format(name), "execution_environment": settings.organization, "forks": settings.forks,
        "credentials": credentials,
        "extra_vars": dict(template.variables), "survey_enabled": bool(questions), "become_enabled": template.become, "allow_simultaneous": True,
        # A variable that may be given freely reaches other groups.
        "ask_variables_on_launch": group is None, "ask_limit_on_launch": template.limit, "ask_job_type_on_launch": True, "ask_diff_mode_on_launch": True,
        "ask_inventory_on_launch": False, "ask_credential_on_launch": False, "ask_execution_environment_on_launch": False,
        "ask_scm_branch_on_launch": False, "ask_tags_on_launch": False, "ask_skip_tags_on_launch": False, "ask_verbosity_on_launch": False,
        "ask_forks_on_launch": False, "ask_instance_groups_on_launch": False, "ask_job_slice_count_on_launch": False, "ask_labels_on_launch": False,
        "ask_timeout_on_launch": False,
    }
    if questions:
        made["survey_spec"] = {"name": made["name"], "description": made["description"], "spec": questions}
    if group is not None:
        made["extra_vars"]["vm_group"] = group
    if "kvmfleet_file" in options(name):
        made["extra_vars"]["kvmfleet_file"] = settings.fleet_file
    return made


def _team(settings: Settings, group: str) -> str:
    return "{0} {1}".format(settings.organization, group)


def objects(settings: Settings, catalogs: Catalogs, raw_catalogs: Mapping[str, Any]) -> Dict[str, List[Dict[str, Any]]]:
    """The objects of each of KINDS. Raises SpecError where a catalog has a fault.

    :param raw_catalogs: the catalogs as they were written, which become variables of the inventory
    """
    catalogs.check_all()
    own = settings.organization
    groups = sorted(catalogs.names("kvmfleet_groups"))
    if own in groups:
        raise SpecError("awx_configure_organization", own, "is a group in kvmfleet_groups, and its tenants would be operators", "Use another name")
    inputs = {key: getattr(settings, key) for key in ("ssh_key", "known_hosts") if getattr(settings, key)}
    own_images = to_dict("kvmfleet_images", raw_catalogs["kvmfleet_images"]) if raw_catalogs.get("kvmfleet_images") else {}
    templates = [_template(name, settings, catalogs, own_images) for name in TEMPLATES]
    tenants = {group: [_template(name, settings, catalogs, own_images, group) for name, template in TEMPLATES.items() if template.tenants] for group in groups}
    source = "{0} hosts".format(own)
    made: Dict[str, List[Dict[str, Any]]] = {
        "controller_execution_environments": [{"name": own, "image": settings.ee_image, "pull": "missing"}],
        "controller_credential_types": CREDENTIAL_TYPES,
        "controller_organizations": [dict({"name": own, "description": "Those who operate the fleet"},
                                          # Without one AWX installs no collections of the project, and says nothing.
                                          **({"galaxy_credentials": [settings.galaxy_credential]} if settings.galaxy_credential else {}))] + [
            {"name": group, "description": str(catalogs.entry("kvmfleet_groups", group).get("description") or "Tenant group {0}".format(group))}
            for group in groups],
        "controller_teams": [{"name": _team(settings, group), "organization": group} for group in groups],
        # AWX does not tell secrets: with update_secrets they would be sent, and reported as changed, each time.
        "controller_credentials": [{"name": settings.credential, "organization": own, "credential_type": HOSTS_CREDENTIAL_TYPE, "inputs": inputs,
                                    "update_secrets": False}] if inputs else [],
        "controller_notifications": [_notification(given, organization) for given, organization in _told(settings, groups)],
        # What has changed in the repository reaches jobs and inventory when they are started, but for those of the same minute; a new template's playbook
        # has to be there already when the template is made.
        "controller_projects": [dict({"name": own, "organization": own, "scm_type": "git", "scm_url": settings.project_url, "scm_clean": True,
                                      "scm_update_on_launch": True, "scm_update_cache_timeout": 60, "update_project": True},
                                     **{key: value for key, value in (("scm_branch", settings.project_branch), ("credential", settings.project_credential))
                                        if value})],
        "controller_inventories": [{"name": own, "organization": own, "kind": "",
                                    "variables": {key: value for key, value in raw_catalogs.items() if value not in (None, "")}}],
        "controller_inventory_sources": [{
            "name": source, "inventory": own, "organization": own, "source": "scm", "source_project": own, "source_path": settings.fleet_file,
            "credential": settings.credential, "execution_environment": own, "overwrite": True,
            "overwrite_vars": False,  # it would empty the inventory's own variables, the catalogs
            "update_on_launch": False,  # what is left on the hosts is asked by each job itself
            # Where AWX puts the project's collections; for an inventory update it does not say so to Ansible
            "source_vars": {"ANSIBLE_COLLECTIONS_PATH": "/runner/requirements_collections"}}],
        "controller_templates": templates + [template for listed in tenants.values() for template in listed],
        "controller_schedules": [{
            "name": "{0}: read the inventory anew".format(own), "unified_job_template": source, "organization": own, "enabled": True,
            "rrule": "DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY;INTERVAL={0}".format(settings.refresh_minutes)}] if settings.refresh_minutes else [],
        "controller_roles": [{"team": _team(settings, group), "role": "execute", "job_templates": [template["name"] for template in listed]}
                             for group, listed in tenants.items()],
    }
    return made


EVENTS = ("error", "success", "started")
# What AWX wants to have of a notification template, with what is usual.
_NOTIFICATIONS: Dict[str, Dict[str, Any]] = {
    "mail": {"host": None, "sender": None, "recipients": None, "port": 25, "timeout": 30, "use_tls": False, "use_ssl": False, "username": "", "password": ""},
    "webhook": {"url": None, "http_method": "POST", "headers": {}, "disable_ssl_verification": False, "username": "", "password": ""},
}


def _told(settings: Settings, groups: Sequence[str]) -> List[Tuple[Mapping[str, Any], str]]:
    """Each notification with each organization that has it: the operators' own, or those of groups. Raises SpecError."""
    told: List[Tuple[Mapping[str, Any], str]] = []
    for number, given in enumerate(settings.notifications):
        for group in given.get("groups") or [settings.organization]:
            if given.get("groups") and group not in groups:
                raise SpecError("awx_configure_notifications[{0}].groups".format(number), group, "is not in kvmfleet_groups", nearest(group, groups))
            if any(other["name"] == given["name"] and group == organization for other, organization in told):
                raise SpecError("awx_configure_notifications[{0}].name".format(number), given["name"], "is given twice for {0}".format(group),
                                "Give each its own name")
            told.append((given, group))
    return told


def _notification(given: Mapping[str, Any], organization: str) -> Dict[str, Any]:
    """A notification template. Raises SpecError."""
    option = "awx_configure_notifications.{0}".format(given["name"])
    kinds = [kind for kind in _NOTIFICATIONS if given.get(kind)]
    if len(kinds) != 1:
        raise SpecError(option, None, "has {0} of mail and webhook".format("both" if kinds else "none"), "Give one of them")
    wanted = {key: value for key, value in given[kinds[0]].items() if value is not None}
    missing = [key for key, usual in _NOTIFICATIONS[kinds[0]].items() if usual is None and not wanted.get(key)]
    if missing:
        raise SpecError("{0}.{1}.{2}".format(option, kinds[0], missing[0]), None, "is missing", "Add it", "missing_variable")
    return {"name": _notification_name(given, organization), "organization": organization, "notification_type": {"mail": "email"}.get(kinds[0], kinds[0]),
            "notification_configuration": dict(_NOTIFICATIONS[kinds[0]], **wanted)}


def _notification_name(given: Mapping[str, Any], organization: str) -> str:
    """Other objects name it without its organization."""
    return "{0}: {1}".format(organization, given["name"])


def notify(made: Dict[str, List[Dict[str, Any]]], settings: Settings) -> None:
    """Let templates tell the notification templates of their organization, a group's those of the group; the operators' hear of project and inventory too.

    Those that were not made here hear of what fails.
    """
    own = settings.organization
    heard = {_notification_name(given, organization): given.get("events") or EVENTS[:1]
             for given in settings.notifications for organization in given.get("groups") or [own]}
    for kind in ("controller_templates", "controller_projects", "controller_inventory_sources"):
        for item in made[kind]:
            organization = (item.get("extra_vars") or {}).get("vm_group") or own
            for event in EVENTS:
                names = [note["name"] for note in made["controller_notifications"]
                         if (note.get("organization") or own) == organization and event in heard.get(note["name"], EVENTS[:1])]
                if names:
                    item.setdefault("notification_templates_" + event, names)


def merged(made: Mapping[str, Sequence[Mapping[str, Any]]], given: Mapping[str, Any]) -> Dict[str, List[Dict[str, Any]]]:
    """The objects with those that somebody gave: keys of one of the same name win, others are added. Raises SpecError.

    :param given: the lists by their kind, as configuration-as-code tools read them
    """
    result: Dict[str, List[Dict[str, Any]]] = {}
    for kind in KINDS:
        result[kind] = [dict(item) for item in made.get(kind) or []]
        named = {item["name"]: item for item in result[kind] if "name" in item}
        more = given.get(kind) or []
        if not isinstance(more, (list, tuple)) or not all(isinstance(item, Mapping) and (item.get("name") or kind == "controller_roles") for item in more):
            raise SpecError(kind, None, "is not a list of mappings with a name", "Write it as configuration-as-code tools read it")
        for item in more:
            if item.get("name") in named:
                named[item["name"]].update(item)
            else:
                result[kind].append(dict(item))
    return result


class _Dumper(yaml.SafeDumper):
    """Writes texts that Ansible would take for templates as C(!unsafe), and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> Any:
    template = "{{" in data or "{%" in data
    return dumper.represent_scalar("!unsafe" if template else "tag:yaml.org,2002:str", data, style='"' if template else None)


_Dumper.add_representer(str, _text)


def as_file(kind: str, listed: Sequence[Mapping[str, Any]]) -> str:
    """A variable file with one list, without secrets."""
    shown = [{key: value for key, value in item.items() if key != "inputs"} for item in listed] if kind == "controller_credentials" else list(listed)
    # Texts and numbers of Ansible's own types become plain ones.
    return "---\n" + yaml.dump(json.loads(json.dumps({kind: shown})), Dumper=_Dumper, sort_keys=False, width=150, allow_unicode=True)
