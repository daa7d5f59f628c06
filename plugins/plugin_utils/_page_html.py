# Copyright (c) 2026 kvmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet page as HTML: one file that needs nothing else and lets nothing in.

Everything that comes from users or guests is escaped by Jinja; data for the page's script is JSON without a character that HTML knows. Script and style
are named by their hashes in the content security policy, so that nothing else would run even if it got there.
"""
from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
from typing import Any, Dict, Optional, Tuple

import jinja2
from markupsafe import Markup

from ansible_collections.kvmfleet.core.plugins.plugin_utils._fleet_page import Page

_TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "roles", "vm", "templates")
# Around what drifts, and where the fingerprint goes, until the page is done. No text on it has control characters: plain() drops them.
_DRIFT, _CONTENT = "\0", "\1"
_DRIFTS = re.compile("\0[^\0]*\0")
_PRINT = re.compile(r'<meta name="kvmfleet-content" content="([0-9a-f]+)">')
_PAIR = re.compile(r"light-dark\(((?:[^(),]|\([^()]*\))+), ((?:[^(),]|\([^()]*\))+)\)")
_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


@functools.lru_cache(maxsize=None)
def _parts() -> Tuple[jinja2.Template, str, str]:
    """The page's template, style and script."""
    texts = {}
    for name in ("fleet_page.html.j2", "fleet_page.css", "fleet_page.js"):
        with open(os.path.join(_TEMPLATES, name), encoding="utf-8") as stream:
            texts[name] = stream.read()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(texts["fleet_page.html.j2"]), _schemes(texts["fleet_page.css"]), texts["fleet_page.js"]


def _schemes(style: str) -> str:
    """The style with plain colours, for browsers of before 2024 too. Its first rule has them in pairs, C(light-dark(LIGHT, DARK)), and is written out
    for light, for dark, for who has chosen one of them, and for paper."""
    first, rest = style.split("\n}\n", 1)
    notes, pairs = first.split(":root {", 1)
    light, dark = _PAIR.sub(r"\1", pairs), _PAIR.sub(r"\2", pairs)
    shapes = (":root {{ color-scheme: light dark;{light}\n}}", "@media (prefers-color-scheme: dark) {{ :root {{{dark}\n}} }}",
              ':root[data-theme="light"] {{ color-scheme: light;{light}\n}}', ':root[data-theme="dark"] {{ color-scheme: dark;{dark}\n}}',
              "@media print {{ :root, :root[data-theme] {{ color-scheme: light;{light}\n}} }}")
    return notes + "\n".join(shape.format(light=light, dark=dark) for shape in shapes) + "\n" + rest


def embedded(data: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return "'sha256-{0}'".format(base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii"))


def render(page: Page, time: str) -> str:
    """The page. It carries a fingerprint of what is on it but the time and what is really used, which drifts by itself.

    :param time: when its data was taken, in UTC
    """
    template, style, script = _parts()
    style = "\n{0}\n{1}\n".format(style, page.widths.css())
    script = "\n{0}\n".format(script)
    policy = "default-src 'none'; style-src {0}; script-src {1}; img-src data:; base-uri 'none'; form-action 'none'".format(
        _hash(style + page.uses.css()), _hash(script))
    text = template.render(
        page=page, time=time, shown_time=time.replace("T", " ").replace("Z", " UTC"), policy=policy, drift=_DRIFT, content=_CONTENT, style=Markup(style),
        uses=Markup(page.uses.css()), script=Markup(script), data=Markup(embedded(page.data))) + "\n"
    content = hashlib.sha256(_DRIFTS.sub("", text).encode("utf-8")).hexdigest()
    return text.replace(_DRIFT, "").replace(_CONTENT, content)


def print_of(html: str) -> Optional[str]:
    """The fingerprint of a page; None where it is no page of ours."""
    found = _PRINT.search(html)
    return found.group(1) if found else None


def data_of(html: str) -> Optional[Dict[str, Any]]:
    """The data of a page; None where it is no page of ours."""
    found = _DATA.search(html)
    try:
        data = json.loads(found.group(1)) if found else None
    except ValueError:
        return None
    whole = isinstance(data, dict) and all(isinstance(data.get(key), list) and all(isinstance(item, dict) for item in data[key]) for key in ("hosts", "vms"))
    return data if whole else None
