# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that tell people how far long work is, while a task goes on.

A thread of the task's own worker looks at the file that the module keeps (module_utils/_progress.py), over a copy of the task's connection. The task itself
runs, returns and fails as it would without it.
"""
from __future__ import annotations

import copy
import json
import shlex
import threading
import time
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ansible.plugins.action import ActionBase
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.utils.display import Display

from ansible_collections.kvmfleet.core.plugins.module_utils._progress import FOLDER, reading
from ansible_collections.kvmfleet.core.plugins.plugin_utils._table import shown

FIRST_S = 5.0
EVERY_S = 5.0
AGAIN_S = 10.0
_MOST = 6
_JOIN_S = 10.0

States = Mapping[str, Tuple[str, bool]]  # by subject what is said of it, and whether that is the last word

display = Display()


class Teller:
    """Chooses what is worth a line: what is new, and from time to time that something still goes on."""

    def __init__(self, host: str, again_s: float = AGAIN_S, most: int = _MOST) -> None:
        self.host, self.again_s, self.most = host, again_s, most
        self._told: Dict[str, Tuple[str, float]] = {}

    def lines(self, elapsed_s: float, states: States) -> List[str]:
        """The lines for what is known C(elapsed_s) seconds after the beginning."""
        due = []
        for subject, (text, done) in states.items():
            before, when = self._told.get(subject, ("", 0.0))
            if text != before or (not done and elapsed_s - when >= self.again_s):
                due.append(subject)
        for subject in due:
            self._told[subject] = (states[subject][0], elapsed_s)
        lines = ["{0} on {1}: {2} ({3:.0f} s)".format(shown(subject), self.host, shown(states[subject][0]), elapsed_s) for subject in due[:self.most]]
        if len(due) > self.most:
            at_work = len([1 for _text, done in states.values() if not done])
            lines.append("... and {0} more on {1}, {2} of {3} not done yet".format(len(due) - self.most, self.host, at_work, len(states)))
        return lines


class Watch:
    """For the length of a C(with) block: look from time to time, and print what L(Teller) finds worth it.

    :param look: returns the states; None where there is nothing to see. Called in a thread. What it raises ends the looking, not the work
    """

    def __init__(self, look: Callable[[], Optional[States]], host: str, first_s: float = FIRST_S, every_s: float = EVERY_S) -> None:
        self.look, self.teller, self.first_s, self.every_s = look, Teller(host), first_s, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        # A look at a host that hangs is left alone: it ends with the worker.
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        started, pause = time.monotonic(), self.first_s
        while not self._end.wait(pause):
            pause = self.every_s
            try:
                states = self.look()
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with looking must not be wrong with the work
                display.vvv("kvmfleet: cannot tell how far the work is: {0}".format(exc), host=self.teller.host)
                return
            if self._end.is_set():
                return
            for line in self.teller.lines(time.monotonic() - started, states or {}):
                display.display(line)


class SecondLook:
    """Short commands on a task's host while its own connection is busy. Connections keep nothing between commands that a copy could disturb."""

    def __init__(self, action: ActionBase) -> None:
        self._action = copy.copy(action)
        self._action._connection = copy.copy(action._connection)
        if self._action._connection.become is not None:
            self._action._connection.become = copy.copy(action._connection.become)

    def output(self, *command: str) -> Optional[str]:
        """What a command prints; None where it fails."""
        done = self._action._low_level_execute_command(" ".join(map(shlex.quote, command)))
        return str(done["stdout"]) if done["rc"] == 0 else None


def read_states(text: Optional[str]) -> Optional[States]:
    """The states in the file of a module; None where there is none, or not yet."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return None
    return {str(subject): (str(said[0]), bool(said[1])) for subject, said in data.items()}


class ProgressAction(NormalAction):
    """Runs the module of the action's name as Ansible does, and prints how far it is when that takes longer than some seconds."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        if self._task.async_val or self._task.check_mode or self._task.no_log:
            return dict(super().run(tmp, task_vars))
        path = "{0}/run-{1}".format(self.progress_folder(), uuid.uuid4().hex)
        self._task.args = dict(self._task.args, progress=path)
        look = SecondLook(self)
        with Watch(lambda: read_states(look.output(*reading(path))), host_name(self, task_vars or {})):
            return dict(super().run(tmp, task_vars))

    def progress_folder(self) -> str:
        """Where the module writes."""
        return FOLDER


def host_name(action: ActionBase, task_vars: Mapping[str, Any]) -> str:
    """The host that a task works on, as people know it."""
    return str(action._task.delegate_to or task_vars.get("inventory_hostname") or "this host")
