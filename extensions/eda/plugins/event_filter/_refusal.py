# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the event filters do with a body that is refused. No filter itself; they run it from its file, as ansible-rulebook does with them."""
from __future__ import annotations

import asyncio
import logging
from typing import Any, List


class Refusal(Exception):
    """Why a body is refused, in words for whoever sent it."""


def _answers_a_request() -> bool:
    """Whether the filter runs in the call of a web server that answers somebody: whether the task that runs is one of aiohttp's."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # nothing runs at all
        return False
    frame = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("aiohttp.")


def refuse(name: str, exc: Refusal) -> List[Any]:
    """Answer whoever sent it with 400, or, where an exception would end the source because nobody waits for an answer, say so in the log: no event.

    :param name: of the filter
    """
    if not _answers_a_request():
        logging.getLogger(name).warning("A body was dropped: %s", exc)
        return []
    from aiohttp import web  # only ansible-rulebook has it

    raise web.HTTPBadRequest(text="{0}\n".format(exc)) from None
