# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module of this name, with lines that tell how far it is."""
from __future__ import annotations

from ansible_collections.kvmfleet.core.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """See plugins/modules/base_image_file.py for its documentation."""

    def progress_folder(self) -> str:
        # On the control node, where nobody needs to be root
        return str(self._task.args.get("folder") or super().progress_folder())
