# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of what the modules support."""
from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules that write, as INFO of those that only read, and as CONTROL of what works on the control node and touches no host."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Whether it can say what it would change without changing anything.
  diff_mode:
    support: full
    description: Whether it returns what changes, or would change, when run with C(--diff).
  idempotent:
    support: full
    description: Whether a second run with the same options changes nothing.
  platform:
    platforms: Linux
    support: full
    description: The systems that it runs on.
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Whether it can say what it would change without changing anything.
    details:
      - It changes nothing, so that check mode makes no difference.
  diff_mode:
    support: N/A
    description: Whether it returns what changes, or would change, when run with C(--diff).
  idempotent:
    support: full
    description: Whether a second run with the same options changes nothing.
  platform:
    platforms: Linux
    support: full
    description: The systems that it runs on.
"""

    CONTROL = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Whether it can say what it would change without changing anything.
    details:
      - It changes nothing, so that check mode makes no difference.
  diff_mode:
    support: N/A
    description: Whether it returns what changes, or would change, when run with C(--diff).
  platform:
    platforms: posix
    support: full
    description: It runs on the control node.
"""
