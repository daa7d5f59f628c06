# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the reference pages; it runs without a network."""
from __future__ import annotations

project = "kvmfleet.core"
copyright = "kvmfleet contributors"
extensions = ["sphinx_antsibull_ext"]
html_theme = "sphinx_ansible_theme"
html_title = "kvmfleet.core"
html_use_smartypants = False
html_show_sphinx = False
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
# Pages of Ansible itself would have to be fetched
intersphinx_mapping = {}
suppress_warnings = ["ref.ref"]
