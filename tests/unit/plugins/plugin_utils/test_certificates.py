# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: what is issued really opens a TLS connection, what has to be issued anew, and what does not go together."""
from __future__ import annotations

import os
import ssl
import stat

import pytest

from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError
from ansible_collections.kvmfleet.core.plugins.plugin_utils import _certificates
from ansible_collections.kvmfleet.core.plugins.plugin_utils._certificates import Folder, Pair, issue, names_of, new_authority, require_match, why_anew

NAMES = ["kvm1.example.org", "192.0.2.1", "kvm1"]


@pytest.fixture(scope="module")
def authority():
    return new_authority()


def handshake(folder, authority, server, client, name):
    """Both ends of a connection in memory; raises SSLError."""
    (folder / "ca").write_text(authority, encoding="ascii")
    contexts = []
    for side, pair in (("server", server), ("client", client)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
        (folder / side).write_text(pair.certificate + pair.key, encoding="ascii")
        context.load_cert_chain(str(folder / side))
        context.load_verify_locations(str(folder / "ca"))
        context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[1].wrap_bio(back, there, server_hostname=name), contexts[0].wrap_bio(there, back, server_side=True)]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue


def test_both_sides_accept_each_other(authority, tmp_path):
    server, client = issue(authority, NAMES), issue(authority, ["me"], client=True)
    for name in NAMES:
        handshake(tmp_path, authority.certificate, server, client, name)
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, authority.certificate, server, client, "kvm2.example.org")
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, authority.certificate, server, issue(new_authority(), ["me"], client=True), "kvm1")
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, authority.certificate, client, client, "me")


def test_what_has_to_be_issued_anew(authority, monkeypatch):
    server = issue(authority, NAMES)
    assert names_of(server.certificate) == sorted(NAMES)
    assert why_anew(server.certificate, authority.certificate, list(reversed(NAMES))) is None
    assert why_anew(server.certificate, authority.certificate, NAMES[:1]) == "it is for other names"
    assert why_anew(server.certificate, new_authority().certificate, NAMES) == "it is from another authority"
    assert why_anew("rubbish", authority.certificate, NAMES) == "it cannot be read"
    assert names_of(issue(authority, ["me"], client=True).certificate) == []
    monkeypatch.setattr(_certificates, "RENEW_DAYS", 900)
    assert why_anew(server.certificate, authority.certificate, NAMES) == "it ends in 824 days"


def test_given_ones_go_together(authority):
    server = issue(authority, NAMES)
    require_match(authority.certificate, server)
    for ca, pair, option in (
            (authority.certificate, Pair(server.certificate, issue(authority, NAMES).key), "key"), (new_authority().certificate, server, "ca"),
            ("rubbish", server, "ca"), (authority.certificate, Pair("rubbish", server.key), "certificate"),
            (authority.certificate, Pair(server.certificate, "rubbish"), "key")):
        with pytest.raises(SpecError) as caught:
            require_match(ca, pair)
        assert caught.value.option == option
        assert server.key not in str(caught.value)


def test_one_that_has_ended_is_refused(authority, monkeypatch):
    monkeypatch.setattr(_certificates, "_CERTIFICATE_DAYS", 0)
    with pytest.raises(SpecError, match="has ended"):
        require_match(authority.certificate, issue(authority, NAMES))


def test_a_folder(tmp_path):
    folder = Folder(str(tmp_path / "tls"))
    assert len(folder.make(True)) == 2 and not (tmp_path / "tls").exists()
    assert len(folder.make(False)) == 2
    assert folder.make(False) == folder.make(True) == []
    assert stat.S_IMODE(os.stat(tmp_path / "tls").st_mode) == 0o700
    assert all(stat.S_IMODE(os.stat(tmp_path / "tls" / name).st_mode) == 0o600 for name in ("cakey.pem", "clientkey.pem"))
    (tmp_path / "tls/clientcert.pem").write_text(issue(new_authority(), ["me"], client=True).certificate, encoding="ascii")
    assert len(folder.make(True)) == len(folder.make(False)) == 1
    os.unlink(tmp_path / "tls/cakey.pem")
    for check in (True, False):
        with pytest.raises(SpecError, match="without cakey.pem"):
            folder.make(check)
