# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module of this name, with lines that tell how far it is."""
from __future__ import annotations

from ansible_collections.kvmfleet.core.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """See plugins/modules/vm_disk.py for its documentation."""
