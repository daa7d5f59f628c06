# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of claims: those of another group are not named. Who wins is in tests/unit/plugins/action/test_place_rounds.py and tests/unit/protocol."""
from __future__ import annotations

from typing import Any, Dict, Optional

import pytest

from ansible_collections.kvmfleet.core.plugins.plugin_utils._planning import Context
from ansible_collections.kvmfleet.core.plugins.plugin_utils._settle import settle

MAC = "52:54:00:00:00:01"


def claim(name: str, ticket: str, group: Optional[str], **more: Any) -> Dict[str, Any]:
    return dict({"name": name, "uuid": name, "group": group, "phase": "pending", "ticket": ticket, "claim_age_s": 1.0, "macs": [], "addresses": []}, **more)


@pytest.mark.parametrize("theirs", [{"macs": [MAC]}, {"addresses": ["192.0.2.9/24"]}])
@pytest.mark.parametrize("rival", ["1", "9"])
@pytest.mark.parametrize(("group", "named"), [("red", False), ("blue", True), (None, True)])
def test_another_groups_vm_is_not_named(theirs: Dict[str, Any], rival: str, group: Optional[str], named: bool) -> None:
    states = {"kvm1": {"vms": [claim("web", "5", group, macs=[MAC], addresses=["192.0.2.9/24"])]}, "kvm2": {"vms": [claim("secret", rival, "blue", **theirs)]}}
    verdict = settle({"web": "kvm1"}, states, Context("5"), {}, {})
    said = " ".join([verdict.fatal or "", *verdict.withdraw.values(), *verdict.wait.values()])
    assert said and "kvm2" in said and ("secret" in said) is named
    assert named or "VM of another group on kvm2" in said
