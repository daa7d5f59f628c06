#!/usr/bin/python
# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of this name, which runs on the control node."""
from __future__ import annotations

DOCUMENTATION = r"""
module: awx_objects
short_description: Say what AWX has to have for a fleet
version_added: 0.1.0
author: kvmfleet contributors (@kvmfleet)
description:
  - Makes out of the catalogs (C(kvmfleet_*)), the hosts of the inventory and the playbooks' argument specs the objects that AWX needs - project, execution
    environment, credential types, inventory, job templates with surveys, and for each tenant group an organization, a team, and templates that it may execute.
  - They are in the variables that configuration-as-code tools read (C(controller_templates), ...). Objects that are given in these variables already are
    added; of one of the same name the given keys win.
  - Asks nobody and changes nothing. The role P(kvmfleet.core.awx_configure#role) makes AWX so.
options:
  project_url:
    description: Address of the Git repository that is AWX's project. Without it nothing is made but what is given.
    type: str
  project_branch:
    description: Branch, tag or commit.
    type: str
  project_credential:
    description: AWX credential that may read the repository.
    type: str
  ee_image:
    description: Image of the execution environment. Needed with O(project_url).
    type: str
  organization:
    description: Organization of those who operate the fleet. Project, inventory, execution environment and templates bear its name.
    type: str
    default: kvmfleet
  fleet_file:
    description: Path in the project of the file of the inventory plugin P(kvmfleet.core.fleet#inventory).
    type: str
    default: fleet.yml
  credential:
    description: Name of the credential with the SSH key for the hosts.
    type: str
    default: kvmfleet hosts
  ssh_key:
    description: Private key for the hosts. Without it the credential has to be there.
    type: str
  known_hosts:
    description: Host keys, lines of a known_hosts file. Goes with O(ssh_key).
    type: str
  guest_credential:
    description: Credential of the type C(kvmfleet guests) with secrets for new VMs.
    type: str
  vault_credential:
    description: Credential of AWX's own type Vault, for values of the fleet file that are encrypted. Used by the jobs that read its O(ignore:vms).
    type: str
  galaxy_credential:
    description: Galaxy credential of the organization, without which AWX installs no collections of a project. An empty text for none.
    type: str
    default: Ansible Galaxy
  forks:
    description: How many hosts a job asks at once.
    type: int
    default: 50
  refresh_minutes:
    description: How often the inventory is read anew; V(0) for no schedule.
    type: int
    default: 15
  notifications:
    description:
      - Who is told of jobs. A notification template is made of each in the operators' organization, or in that of each of its C(groups).
    type: list
    elements: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      events:
        description: What is told of.
        type: list
        elements: str
        choices: [error, success, started]
        default: [error]
      groups:
        description: Groups whose jobs it tells of. Without it, it tells of the operators' jobs, and of updates of project and inventory.
        type: list
        elements: str
      mail:
        description: Send a mail.
        type: dict
        suboptions:
          host:
            description: Mail server.
            type: str
            required: true
          sender:
            description: Address that it is from.
            type: str
            required: true
          recipients:
            description: Addresses that it goes to.
            type: list
            elements: str
            required: true
          port:
            description: Port of the server. AWX is told 25 where it is left out.
            type: int
          timeout:
            description: Seconds that the server has. AWX is told 30 where it is left out.
            type: int
          use_tls:
            description: Whether to use STARTTLS.
            type: bool
          use_ssl:
            description: Whether to use TLS from the beginning.
            type: bool
          username:
            description: User at the server.
            type: str
          password:
            description: The user's password.
            type: str
      webhook:
        description: Call an address.
        type: dict
        suboptions:
          url:
            description: The address.
            type: str
            required: true
          http_method:
            description: How it is called. AWX is told V(POST) where it is left out.
            type: str
            choices: [POST, PUT]
          headers:
            description: Further headers.
            type: dict
          disable_ssl_verification:
            description: Whether the server may have any certificate.
            type: bool
          username:
            description: User at the server.
            type: str
          password:
            description: The user's password.
            type: str
extends_documentation_fragment:
  - kvmfleet.core.attributes.control
"""

EXAMPLES = r"""
- name: Say what AWX has to have
  kvmfleet.core.awx_objects:
    project_url: https://git.example.org/fleet.git
    ee_image: registry.example.org/kvmfleet-ee:0.1.0
  register: awx

- name: Show the surveys
  ansible.builtin.debug:
    msg: "{{ awx.objects.controller_templates | map(attribute='survey_spec', default={}) }}"
"""

RETURN = r"""
objects:
  description: The lists of objects by the name of their variable.
  type: dict
  returned: success
  sample: {"controller_teams": [{"name": "kvmfleet red", "organization": "red"}]}
files:
  description: The same as texts of variable files, without secrets.
  type: dict
  returned: success
reason:
  description: Stable key of the failure.
  type: str
  returned: failure
"""
