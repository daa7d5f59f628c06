# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the site; it runs without a network. Called by scripts/docs.sh."""
from __future__ import annotations

project = "kvmfleet.core"
copyright = "kvmfleet contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# The front page of the repository is not one of the site, which has docs/README.md for that
exclude_patterns = ["README.md", "docs/sphinx"]
html_theme = "sphinx_ansible_theme"
html_title = "kvmfleet.core"
html_use_smartypants = False
html_show_sphinx = False
html_copy_source = False
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
# Links to headings are written as a forge makes them: [text](page.md#some-heading)
myst_heading_anchors = 4
# Pages of Ansible itself would have to be fetched
intersphinx_mapping = {}
suppress_warnings = ["ref.ref"]
