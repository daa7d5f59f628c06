# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's TLS files on a host. What others have put there is neither replaced nor removed, unless that is asked for."""
from __future__ import annotations

import hashlib
import json
import os
import ssl
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import read_text, replace
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

FILES = {"ca": "/etc/pki/CA/cacert.pem", "certificate": "/etc/pki/libvirt/servercert.pem", "key": "/etc/pki/libvirt/private/serverkey.pem"}
# The digests of what we have put there, so that it can be told from what others have.
NOTED = "/var/lib/kvmfleet/tls.json"
_MODES = {"ca": 0o644, "certificate": 0o644, "key": 0o600}
_FOLDER_MODES = {"ca": 0o755, "certificate": 0o755, "key": 0o750}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class TlsFiles:
    """The three files. Raises SpecError.

    :param root: where the file system begins, for tests
    """

    def __init__(self, root: str = "/") -> None:
        self.paths = {name: os.path.join(root, path.lstrip("/")) for name, path in FILES.items()}
        self.noted_path = os.path.join(root, NOTED.lstrip("/"))
        self.there = {name: read_text(path) for name, path in self.paths.items()}
        self.noted = self._read_notes()

    def _read_notes(self) -> Dict[str, List[str]]:
        try:
            noted = json.loads(read_text(self.noted_path) or "{}")
        except ValueError:
            return {}
        return {str(name): [str(d) for d in digests] for name, digests in noted.items()} if isinstance(noted, dict) else {}

    def _note(self, digests: Mapping[str, List[str]]) -> None:
        if digests != self.noted:
            replace(self.noted_path, json.dumps(digests, sort_keys=True))
            self.noted = dict(digests)

    def foreign(self, wanted: Optional[Mapping[str, str]] = None) -> List[str]:
        """The files that others have put there, but those that are just what is wanted."""
        return [name for name, text in self.there.items() if text is not None and text != (wanted or {}).get(name)
                and _digest(text) not in self.noted.get(name, [])]

    def query(self) -> Dict[str, Any]:
        """What there is. The key does not leave the host; it is told whether it is that of the certificate."""
        fits = False
        if self.there["certificate"] is not None and self.there["key"] is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.paths["certificate"], self.paths["key"], password="")
                fits = True
            except OSError:  # so is ssl.SSLError
                fits = False
        return {"changed": False, "actions": [], "ca": self.there["ca"], "certificate": self.there["certificate"], "key_fits": fits,
                "foreign": [self.paths[name] for name in self.foreign()]}

    def present(self, wanted: Mapping[str, str], overwrite: bool, check: bool) -> Dict[str, Any]:
        """Have these files; the module's result."""
        foreign = self.foreign(wanted)
        if foreign and not overwrite:
            raise SpecError("replace", overwrite, "{0} {1} there, and not from this collection".format(
                " and ".join(self.paths[name] for name in foreign), "are" if len(foreign) > 1 else "is"),
                "To go on using them, give them as ca, certificate and key; to have them replaced, set replace to true", "foreign_certificate")
        names = [name for name in ("ca", "key", "certificate") if self.there[name] != wanted[name]]
        if not check:
            ours = {name: [_digest(wanted[name])] for name in FILES}
            # Before a file is ours, it is noted as ours; whatever dies in between leaves nothing that looks foreign.
            self._note({name: sorted(set(ours[name] + self.noted.get(name, []))) for name in FILES})
            for name in names:
                replace(self.paths[name], wanted[name], _MODES[name], _FOLDER_MODES[name])
            self._note(ours)
        return self._result(["write {0}".format(self.paths[name]) for name in names], {name: _digest(text) for name, text in wanted.items()})

    def absent(self, check: bool) -> Dict[str, Any]:
        """Remove what is ours; the module's result. What is of others stays."""
        foreign = self.foreign()
        names = [name for name in ("certificate", "key", "ca") if self.there[name] is not None and name not in foreign]
        if not check:
            for name in names:
                os.unlink(self.paths[name])
            if os.path.exists(self.noted_path):
                os.unlink(self.noted_path)
        return self._result(["remove {0}".format(self.paths[name]) for name in names], {name: _digest(self.there[name] or "") for name in foreign})

    def _result(self, actions: List[str], after: Mapping[str, str]) -> Dict[str, Any]:
        before = {self.paths[name]: "sha256:" + _digest(text) for name, text in self.there.items() if text is not None}
        return {"changed": bool(actions), "actions": actions, "diff": {"before": before, "after": {
            self.paths[name]: "sha256:" + digest for name, digest in after.items()}}}
