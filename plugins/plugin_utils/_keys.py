# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH keys on the control node: those given are read, and a pair is made where none is."""
from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Tuple

from ansible_collections.kvmfleet.core.plugins.module_utils._seed_spec import check_ssh_key
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

_AWX_ENVIRONMENT = ("AWX_JOB_ID", "TOWER_JOB_ID", "AWX_HOST")
_KEY_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}$")


@dataclass
class Keys:
    """The public keys of a request, and where the private one is if we know."""

    public: List[str] = field(default_factory=list)
    name: Optional[str] = None
    path: Optional[str] = None
    note: Optional[str] = None


def under_awx(variables: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether this is an AWX job, in whose execution environment a file dies with the job."""
    return any(environment.get(k) for k in _AWX_ENVIRONMENT) or any(variables.get(k) for k in ("awx_job_id", "tower_job_id"))


def _read(option: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "is not text"
        raise SpecError(option, path, "cannot be read ({0})".format(reason), "Give the path of a readable file on the control node") from None


def read_text(option: str, path: str) -> str:
    """The text of a file on the control node. Raises SpecError."""
    return _read(option, os.path.expanduser(path))


def _lines(option: str, text: str) -> List[str]:
    return [check_ssh_key(option, line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _from_path(option: str, given: str) -> Tuple[List[str], str]:
    path = os.path.expanduser(given)
    if path.endswith(".pub"):
        text = _read(option, path)
    else:
        text = _read(option, path)
        if "PRIVATE KEY" in text:
            if not os.path.exists(path + ".pub"):
                raise SpecError(option, given, "is a private key without its public one beside it",
                                "Make it: ssh-keygen -y -f {0} > {0}.pub".format(given))
            text = _read(option, path + ".pub")
    keys = _lines(option, text)
    if not keys:
        raise SpecError(option, given, "has no key in it", "Give the path of a public key")
    return keys, path


def items_of(value: Any) -> List[str]:
    """The keys and paths in a list or in lines."""
    items = value if isinstance(value, (list, tuple)) else str(value).splitlines()
    return [str(item).strip() for item in items if str(item).strip()]


def names_a_file(item: str) -> bool:
    """Whether this is a path and not a key itself."""
    return item.startswith(("/", "~", "./", "../")) or (" " not in item and (item.endswith(".pub") or os.path.exists(item)))


def given_keys(option: str, value: Any) -> Keys:
    """Keys that the user gave: texts or paths. Raises SpecError."""
    keys = Keys()
    for item in items_of(value):
        if names_a_file(item):
            public, path = _from_path(option, item)
            base = path[:-len(".pub")] if path.endswith(".pub") else path
            if keys.path is None and os.path.exists(base) and base != path + ".pub":
                keys.path = base
            name = os.path.basename(base)
        elif re.match(r"^(ssh|ecdsa|sk)-[a-z0-9@.-]+\Z", item):
            raise SpecError(option, item, "is the beginning of a public key only; an unquoted blank ends the value of -e",
                            "Quote it: -e \"{0}='{1} AAAA... comment'\"".format(option, item))
        else:
            public = _lines(option, item)
            words = public[0].split() if public else []
            name = words[2] if len(words) > 2 else ""
        keys.public.extend(k for k in public if k not in keys.public)
        keys.name = keys.name or (name if _KEY_NAME.match(name) else None)
    return keys


def _public_of(private: bytes, comment: str) -> str:
    from cryptography.hazmat.primitives import serialization  # ansible-core needs it too; imported late because it is slow

    key = serialization.load_ssh_private_key(private, password=None)
    text = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return "{0} {1}".format(text.decode(), comment)


def _new_private() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())


def _publish(path: str, data: bytes, mode: int) -> bool:
    """Write a file that must not be there yet, whole or not at all; false where somebody else was first."""
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)


def key_pair(directory: str, name: str, check_mode: bool) -> Keys:
    """The key pair of that name: made the first time, used again afterwards. In check mode a new one is not kept.

    Two runs at once end with one pair: the private file is published by a link, which only one can make, and the public one is derived from it.
    """
    if not _KEY_NAME.match(name):
        raise SpecError("vm_key_name", name, "is not a file name of a key", "Use letters, digits and . _ @ + -, beginning with a letter or a digit")
    path = os.path.join(os.path.abspath(os.path.expanduser(directory)), name)
    comment = "kvmfleet-{0}".format(name)
    try:
        if os.path.exists(path + ".pub"):
            public = _read("vm_key_dir", path + ".pub").strip()
            if not os.path.exists(path):
                return Keys([check_ssh_key("vm_key_dir", public)], name, None, "Its private key is not in {0}".format(path))
            if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
                raise SpecError("vm_key_dir", path, "can be read by others", "Run: chmod 600 {0}".format(path))
            return Keys([check_ssh_key("vm_key_dir", public)], name, path)
        if not os.path.exists(path):
            private = _new_private()
            if check_mode:
                return Keys([_public_of(private, comment)], name, None, "A key pair would be made: {0}".format(path))
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _publish(path, private, 0o600)
        with open(path, "rb") as stream:
            public = _public_of(stream.read(), comment)
        if not check_mode:
            _publish(path + ".pub", public.encode() + b"\n", 0o644)
    except OSError as exc:
        raise SpecError("vm_key_dir", directory, "no key pair can be kept there ({0})".format(exc.strerror),
                        "Name a folder of yours, or give a public key with vm_ssh_key") from None
    except ValueError:
        raise SpecError("vm_key_dir", path, "is there, but is no OpenSSH private key without a passphrase",
                        "Give its public key with vm_ssh_key, or another vm_key_name") from None
    return Keys([check_ssh_key("vm_key_dir", public)], name, path)


def keys_for(values: Mapping[str, Any], default_name: str, check_mode: bool, awx: bool) -> Keys:
    """The keys of a request.

    :param values: the converted variables
    :param default_name: name of a pair that has to be made
    :param awx: whether this is an AWX job
    """
    given = values.get("vm_ssh_key")
    if isinstance(given, str) and given.strip() == "none":
        return Keys()
    if given is not None and str(given).strip() not in ("", "[]"):
        keys = given_keys("vm_ssh_key", given)
        keys.name = values.get("vm_key_name") or keys.name
        return keys
    if awx:
        raise SpecError("vm_ssh_key", None, "is missing, and a key pair made in an AWX job would be lost with it",
                        "Give your public key as vm_ssh_key, or vm_ssh_key=none for a VM without one", "missing_variable")
    return key_pair(values["vm_key_dir"], values.get("vm_key_name") or default_name, check_mode)
