# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what modules tell while they work."""
from __future__ import annotations


class ModuleDocFragment:
    """The option by which the action of a module's name asks it to tell how far it is."""

    DOCUMENTATION = r"""
options:
  progress:
    description:
      - File on the host in which the module tells how far it is, for as long as it works. Only its owner can read it, and it holds names and states only.
      - The action of the module's name sets it and prints what changes, or every ten seconds that something goes on, when the module takes longer than
        five seconds. Not in check mode, with C(async) or with C(no_log).
    type: path
"""
