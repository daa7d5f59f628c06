# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates for libvirt's TLS: a small authority in a folder of the control node, what it issues, and whether given ones go together."""
from __future__ import annotations

import contextlib
import datetime
import fcntl
import ipaddress
import os
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Union

from ansible_collections.kvmfleet.core.plugins.module_utils._own_files import read_text, replace
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    HAS_CRYPTOGRAPHY = True
except ImportError:  # ansible-core brings it; reported by the action host_tls
    HAS_CRYPTOGRAPHY = False

# As libvirt names them in the folder of the URI parameter pkipath.
AUTHORITY, AUTHORITY_KEY, CLIENT, CLIENT_KEY = "cacert.pem", "cakey.pem", "clientcert.pem", "clientkey.pem"
_AUTHORITY_DAYS, _CERTIFICATE_DAYS = 3650, 825
RENEW_DAYS = 60
_SKEW = datetime.timedelta(hours=1)  # clocks of hosts need not agree


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as PEM."""

    certificate: str
    key: str


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _not_after(certificate: x509.Certificate) -> datetime.datetime:
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)  # before cryptography 42


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode("ascii")


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = _now()
    return x509.CertificateBuilder().subject_name(_named(name)).issuer_name(issuer).public_key(key.public_key()).serial_number(
        x509.random_serial_number()).not_valid_before(now - _SKEW).not_valid_after(now + datetime.timedelta(days=days))


def _usage(signs: bool) -> x509.KeyUsage:
    # libvirt asks for key encipherment, although nothing of that kind is done with these keys
    return x509.KeyUsage(digital_signature=not signs, content_commitment=False, key_encipherment=not signs, data_encipherment=False, key_agreement=False,
                         key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False)


def _general(name: str) -> Union[x509.IPAddress, x509.DNSName]:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def new_authority(name: str = "kvmfleet") -> Pair:
    """An authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _builder(name, _named(name), key, _AUTHORITY_DAYS).add_extension(x509.BasicConstraints(True, 0), True).add_extension(
        _usage(True), True).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False).sign(key, hashes.SHA256())
    return Pair(_text(certificate), _pem(key))


def issue(authority: Pair, names: Sequence[str], client: bool = False) -> Pair:
    """A certificate of the authority for a server of these names and addresses, or for a client."""
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode("ascii"))
    signer: Any = serialization.load_pem_private_key(authority.key.encode("ascii"), None)
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = _builder(names[0], issuer.subject, key, _CERTIFICATE_DAYS).add_extension(x509.BasicConstraints(False, None), True).add_extension(
        _usage(False), True).add_extension(x509.ExtendedKeyUsage([purpose]), False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    if not client:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
    return Pair(_text(builder.sign(signer, hashes.SHA256())), _pem(key))


def _load(option: str, text: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode("utf-8"))
    except ValueError as exc:
        raise SpecError(option, None, "is not a certificate in PEM form ({0})".format(exc), "Give the path of one", "invalid_certificate") from None


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names_of(certificate: str) -> List[str]:
    """The names and addresses that a server's certificate is for, sorted."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode("ascii")).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return sorted(str(general.value) for general in found)


def why_anew(certificate: str, authority: str, names: Optional[Sequence[str]] = None) -> Optional[str]:
    """Why a certificate has to be issued anew, or None.

    :param names: the names that a server's certificate has to have
    """
    try:
        seen, signer = _load("certificate", certificate), _load("ca", authority)
    except SpecError:
        return "it cannot be read"
    if not _signed_by(seen, signer):
        return "it is from another authority"
    if names is not None and names_of(certificate) != sorted({str(_general(name).value) for name in names}):
        return "it is for other names"
    left = _not_after(seen) - _now()
    return "it ends in {0} days".format(max(0, left.days)) if left < datetime.timedelta(days=RENEW_DAYS) else None


def require_match(ca: str, pair: Pair) -> None:
    """Raises SpecError where given certificates and key do not go together."""
    authority, certificate = _load("ca", ca), _load("certificate", pair.certificate)
    try:
        key = serialization.load_pem_private_key(pair.key.encode("utf-8"), None)
    except (ValueError, TypeError):
        raise SpecError("key", None, "is not a private key in PEM form without a password", "Give the path of one", "invalid_certificate") from None
    plain = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*plain) != certificate.public_key().public_bytes(*plain):
        raise SpecError("key", None, "is not the key of the certificate", "Give the key that the certificate was requested with", "invalid_certificate")
    if not _signed_by(certificate, authority):
        raise SpecError("ca", None, "has not signed the certificate", "Give the certificate of the authority that has", "invalid_certificate")
    if _not_after(certificate) < _now():
        raise SpecError("certificate", None, "has ended on {0:%Y-%m-%d}".format(_not_after(certificate)), "Renew it", "invalid_certificate")


class Folder:
    """The authority's folder on the control node, with a certificate for clients beside it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _read(self, certificate: str, key: str) -> Optional[Pair]:
        texts = read_text(self._file(certificate)), read_text(self._file(key))
        return Pair(texts[0], texts[1]) if texts[0] is not None and texts[1] is not None else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One run at a time: hosts are worked on side by side, and there is one authority for all."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        descriptor = os.open(self._file(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, certificate: str, key: str, pair: Pair) -> None:
        replace(self._file(key), pair.key, 0o600)
        replace(self._file(certificate), pair.certificate)

    def authority(self) -> Optional[Pair]:
        """The authority, or None where there is none yet. Raises SpecError for half of one."""
        there = self._read(AUTHORITY, AUTHORITY_KEY)
        if there is None and read_text(self._file(AUTHORITY)) is not None:
            raise SpecError("directory", self.path, "has a {0} without {1}".format(AUTHORITY, AUTHORITY_KEY),
                            "Bring its key back, give another directory, or give certificates of another authority", "no_authority_key")
        return there

    def make(self, check: bool) -> List[str]:
        """Have an authority and a certificate for clients; what was made, or would be."""
        actions = []
        if check:
            there = self.authority()
            if there is None:
                actions.append("make an authority in {0}".format(self.path))
            if there is None or self._client_needed(there):
                actions.append("issue a certificate for clients in {0}".format(self.path))
            return actions
        with self._locked():
            there = self.authority()
            if there is None:
                there = new_authority()
                self._write(AUTHORITY, AUTHORITY_KEY, there)
                actions.append("make an authority in {0}".format(self.path))
            if self._client_needed(there):
                self._write(CLIENT, CLIENT_KEY, issue(there, ["kvmfleet"], client=True))
                actions.append("issue a certificate for clients in {0}".format(self.path))
        return actions

    def _client_needed(self, authority: Pair) -> bool:
        client = self._read(CLIENT, CLIENT_KEY)
        return client is None or why_anew(client.certificate, authority.certificate) is not None
