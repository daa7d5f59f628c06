# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a module is, in a small file that the control node looks at meanwhile.

Saying something costs nothing but an entry in a dict: a thread writes the file, and not before the module has worked for some seconds. The file is for its
owner alone, in a folder of each user's own, holds names and states but no options, and goes with the module; nothing depends on it.
"""
from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

FOLDER = "/run/kvmfleet/progress"  # with a minus and the user's number behind it, see L(own_path)
FIRST_S = 3.0
_EVERY_S = 1.0
_STALE_S = 86400.0

Text = Union[str, Callable[[], str]]


def own_path(path: str) -> str:
    """A file in FOLDER in the folder of this process's user: who comes first must not keep others out. Any other path as it is."""
    folder, name = os.path.split(path)
    return os.path.join("{0}-{1}".format(folder, os.geteuid()), name) if folder == FOLDER else path


def reading(path: str) -> List[str]:
    """The command that prints, on the same host and as the same user, what is in the file that L(own_path) says."""
    folder, name = os.path.split(path)
    return ["sh", "-c", 'exec cat "$0-$(id -u)/$1"', folder, name] if folder == FOLDER else ["cat", path]


class Progress:
    """The states of what one run of a module works at, and the thread that writes them down.

    :param path: the file; None where nobody will look
    """

    def __init__(self, path: Optional[str], first_s: float = FIRST_S, every_s: float = _EVERY_S) -> None:
        self.path = path
        self._states: Dict[str, Tuple[Text, bool]] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write_on, args=(path, first_s, every_s), daemon=True) if path else None
        if self._thread is not None:
            self._thread.start()

    def say(self, subject: str, text: Text, done: bool = False) -> None:
        """What is being done to something. A callable is asked each time somebody could look; C(done) tells that nothing more will be said of it."""
        with self._lock:
            self._states[subject] = (text, done)

    def states(self) -> Dict[str, Any]:
        """What is said at this moment: [text, done] by subject."""
        with self._lock:
            said = dict(self._states)
        return {subject: [text if isinstance(text, str) else text(), done] for subject, (text, done) in said.items()}

    def close(self) -> None:
        """End the writing and remove the file."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            with contextlib.suppress(OSError):
                os.unlink(str(self.path))
            self._thread = None

    def _write_on(self, path: str, first_s: float, every_s: float) -> None:
        written: Optional[Dict[str, Any]] = None
        pause = first_s
        while not self._end.wait(pause):
            pause = every_s
            try:
                states = self.states()
            except (OSError, ValueError):
                continue  # a file that was looked at has been closed or removed meanwhile
            if states == written:
                continue
            try:
                _write(path, json.dumps(states))
            except OSError:
                return  # no place to write to: the work itself matters
            written = states


def _write(path: str, text: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), mode=0o770, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another run makes it at the same moment
            os.mkdir(folder, mode=0o700)
    if folder.startswith(FOLDER) and os.lstat(folder).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "is somebody else's", folder)
    _remove_stale(folder)
    new = path + ".new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
    os.rename(new, path)


def _remove_stale(folder: str) -> None:
    """Files of runs that were killed."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # somebody else may remove it too
            if entry.name.startswith("run-") and entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE_S:
                os.unlink(entry.path)


_current = Progress(None)


def start(path: Optional[str]) -> None:
    """Begin to tell how far this process is."""
    global _current  # pylint: disable=global-statement
    _current = Progress(own_path(path) if path else None)


def stop() -> None:
    """The end of it."""
    _current.close()


def say(subject: str, text: Text, done: bool = False) -> None:
    """See L(Progress.say)."""
    _current.say(subject, text, done)
