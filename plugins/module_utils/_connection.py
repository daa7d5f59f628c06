# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open and close libvirt connections, map its errors, and the argument spec that all modules share."""
from __future__ import annotations

import contextlib
import re
import traceback
from typing import Any, Dict, Iterator, NoReturn, Optional
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ansible_collections.kvmfleet.core.plugins.module_utils._parallel import call_within
from ansible_collections.kvmfleet.core.plugins.module_utils._spec import SpecError

try:
    import libvirt
    HAS_LIBVIRT = True
    LIBVIRT_IMPORT_ERROR = None
except ImportError:
    HAS_LIBVIRT = False
    LIBVIRT_IMPORT_ERROR = traceback.format_exc()

DEFAULT_URI = "qemu:///system"
OPEN_TIMEOUT_S = 30.0

COMMON_ARGUMENT_SPEC: Dict[str, Any] = {
    "uri": {"type": "str", "default": DEFAULT_URI, "fallback": (env_fallback, ["LIBVIRT_DEFAULT_URI"])},
}


class FleetError(Exception):
    """A step on a host that failed: libvirt said no, a tool failed, a lock was not to be had.

    :param message: what failed, with the object's name
    :param code: stable key for programs, such as C(libvirt_error), C(host_busy), C(no_capacity)
    :param data: further result values
    """

    def __init__(self, message: str, code: str = "libvirt_error", **data: Any) -> None:
        super().__init__(message)
        self.code, self.data = code, data


def error_code(exc: Exception) -> Optional[int]:
    """libvirt's error number of an exception, or None."""
    return exc.get_error_code() if HAS_LIBVIRT and isinstance(exc, libvirt.libvirtError) else None


def is_gone(exc: Exception) -> bool:
    """Whether a libvirt error says that the object does not exist (any more)."""
    return error_code(exc) in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_STORAGE_POOL,
                               libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_NO_DOMAIN_METADATA)


def is_remote(uri: str) -> bool:
    """Whether a connection URI names another machine (or goes through a network transport)."""
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    return bool(parts.hostname) or transport in ("ssh", "tcp", "tls", "libssh", "libssh2")


def refuse_remote(uri: str) -> None:
    """Writing modules run on the KVM host itself: raises SpecError for a URI of another machine."""
    if is_remote(uri):
        host = urlsplit(uri).hostname or "the KVM host"
        raise SpecError("uri", uri, "is remote; this module writes, and runs on the KVM host itself",
                        "Add {0} to the inventory, run the task there (hosts: or delegate_to:), and leave uri out or say qemu:///system".format(host),
                        "remote_uri")


def open_connection(uri: str, timeout_s: float = OPEN_TIMEOUT_S) -> libvirt.virConnect:
    """A libvirt connection; libvirt's own printing of errors to stderr is silenced. Raises FleetError, also for a daemon that hangs."""
    libvirt.registerErrorHandler(lambda ctx, err: None, None)
    try:
        in_time, conn = call_within(lambda: libvirt.open(uri), timeout_s)
        if not in_time:
            raise FleetError("libvirt at {0} did not answer within {1:g} s. Is its daemon hung or overloaded?".format(uri, timeout_s), "host_unreachable")
        return conn
    except libvirt.libvirtError as exc:
        raise FleetError("Cannot connect to libvirt at {0}: {1}. Is libvirtd (or virtqemud) running there, and may this user use it "
                         "(root, or the group libvirt)?".format(uri, exc), "host_unreachable") from exc


@contextlib.contextmanager
def connection(uri: str) -> Iterator[libvirt.virConnect]:
    """An open connection for the length of a C(with) block."""
    conn = open_connection(uri)
    try:
        yield conn
    finally:
        conn.close()


def fail_from(module: AnsibleModule, exc: Exception, **result: Any) -> NoReturn:
    """End the module with the one message an exception stands for: SpecError, FleetError or libvirtError."""
    if isinstance(exc, SpecError):
        module.fail_json(msg=str(exc), reason=exc.code, error=exc.as_result(), **result)
    if isinstance(exc, FleetError):
        module.fail_json(msg=str(exc), reason=exc.code, **dict(exc.data, **result))
    text = re.sub(r"\s+", " ", str(exc)).strip()
    if isinstance(exc, libvirt.libvirtError) and exc.get_error_domain() == libvirt.VIR_FROM_RPC:
        module.fail_json(msg="The connection to libvirt at {0} broke: {1}. Run it again when libvirt answers: it goes on where it ended".format(
            module.params["uri"], text), reason="host_unreachable", libvirt_error_code=error_code(exc), **result)
    module.fail_json(msg="libvirt refused: {0}".format(text), reason="libvirt_error", libvirt_error_code=error_code(exc), **result)
    raise AssertionError("fail_json returned")


def require_libvirt(module: AnsibleModule) -> None:
    """End the module with a clear message where libvirt-python is missing."""
    if not HAS_LIBVIRT:
        module.fail_json(msg=missing_required_lib("libvirt", reason="apt: python3-libvirt, dnf: python3-libvirt, PyPI: libvirt-python; "
                                                  "or point ansible_python_interpreter at an interpreter that has it"),
                         exception=LIBVIRT_IMPORT_ERROR, reason="missing_library")


def run_plain(module: AnsibleModule, work: Any) -> None:
    """The frame of a module run that needs no libvirt: work, and map errors to one message."""
    try:
        result = work()
    except (SpecError, FleetError) as exc:
        fail_from(module, exc)
    module.exit_json(**result)


def run_module(module: AnsibleModule, work: Any, writes: bool = True, timeout_s: Optional[float] = None) -> None:
    """The common frame of all modules: check libvirt-python and the URI, connect, work, and map errors to one message.

    :param work: called with the open connection; returns the module's result
    :param writes: whether the module writes, so that a remote URI has to be refused
    :param timeout_s: seconds for all of it, for modules that only read; a late call is left to its thread, which ends with the process
    """
    require_libvirt(module)

    def connected() -> Any:
        with connection(module.params["uri"]) as conn:
            return work(conn)
    try:
        if writes:
            refuse_remote(module.params["uri"])
        if timeout_s is None:
            result = connected()
        else:
            in_time, result = call_within(connected, timeout_s)
            if not in_time:
                raise FleetError("libvirt at {0} did not answer within {1:g} s. Is its daemon hung or overloaded?".format(module.params["uri"], timeout_s),
                                 "host_unreachable")
    except (SpecError, FleetError, libvirt.libvirtError) as exc:
        fail_from(module, exc)
    module.exit_json(**result)
