# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab of the integration tests, for jobs."""
from __future__ import annotations

from ansible_collections.kvmfleet.core.tests.integration.conftest import lab, running_lab

__all__ = ["lab", "running_lab"]
