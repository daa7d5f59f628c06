# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls at once and calls with a deadline: libvirt's release the GIL, and one that asks a hung guest or daemon may block for ever."""
from __future__ import annotations

import functools
import threading
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

Outcome = Tuple[Any, Optional[Exception]]  # a result, or the exception instead of it


def _into(outcome: List[Outcome], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as exc:  # noqa: BLE001 - handed over to the caller's thread, which raises or reports it
        outcome.append((None, exc))
    else:
        outcome.append((result, None))


def call_within(work: Callable[[], Any], timeout_s: float) -> Tuple[bool, Any]:
    """(True, result) of a call, or (False, None) where it takes longer. What the call raises is raised here.

    The thread of a late call is a daemon and is never joined again.
    """
    outcome: List[Outcome] = []
    thread = threading.Thread(target=_into, args=(outcome, work), daemon=True)
    thread.start()
    thread.join(max(0.0, timeout_s))
    if not outcome:
        return False, None
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return True, result


def in_parallel(work: Callable[[Any], Any], items: Sequence[Any], workers: int = 16, timeout_s: Optional[float] = None) -> List[Outcome]:
    """The outcome of C(work) for each item, in the order of the items; C(workers) of them at once.

    :param timeout_s: after which an item that is not done yet gets a TimeoutError as its outcome and is left to its daemon thread
    """
    outcomes: List[List[Outcome]] = [[] for _item in items]
    waiting = list(enumerate(items))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                index, item = waiting.pop(0)
            _into(outcomes[index], functools.partial(work, item))

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    threads = [threading.Thread(target=run, daemon=True) for _number in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    with lock:
        del waiting[:]
    return [outcome[0] if outcome else (None, TimeoutError("no answer within {0:g} s".format(timeout_s or 0))) for outcome in outcomes]
