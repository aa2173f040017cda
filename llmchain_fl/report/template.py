"""The frame of every page: style, head and foot; a page fills the block ``body``. Python, so that it travels with code.

Everything put in is escaped, save the plots (``report/figure.py`` makes them and escapes what stands in them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from llmchain_fl.report.figure import night_colours

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --grey: #52606d; --line: #d9e0e6; --band: #f5f7f9;
  --accent: #1b4f72; --warn: #a84300; --warm: #fdf6f1; --good: #1d6b45; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15191e; --ink: #e3e8ed; --grey: #a3afbb; --line: #343d46; --band: #1d232a; --accent: #7cc0ea;
    --warn: #f0915a; --warm: #2a211b; --good: #6bcb9b; NIGHT }
}
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Helvetica Neue", Arial, "Liberation Sans", "DejaVu Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
header { border-bottom: 3px solid var(--accent); padding-bottom: 1.1rem; margin-bottom: 1.8rem; }
.kicker { margin: 0; color: var(--grey); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: .3rem 0 .2rem; font-size: 1.9rem; line-height: 1.2; font-weight: 600; overflow-wrap: anywhere; }
.sub { margin: 0; color: var(--grey); font-size: .9rem; overflow-wrap: anywhere; }
h2 { margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); font-size: 1.2rem;
  font-weight: 600; color: var(--accent); }
h3 { margin: 1.4rem 0 .4rem; font-size: 1rem; font-weight: 600; }
p { margin: 0 0 .8rem; }
.lead { font-size: 1.15rem; line-height: 1.5; margin-bottom: 1rem; }
.words { margin: .2rem 0 0; color: var(--grey); font-style: italic; overflow-wrap: anywhere; }
.badges { list-style: none; display: flex; flex-wrap: wrap; gap: .35rem .5rem; margin: .7rem 0 0; padding: 0; }
.badges li { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .7rem; font-size: .82rem;
  overflow-wrap: anywhere; }
.answer { border-left: 4px solid var(--grey); background: var(--band); padding: .7rem 1.1rem .5rem; margin: 0 0 .7rem; }
.answer.yes { border-color: var(--good); }
.answer.no { border-color: var(--warn); }
.answer h2 { margin: 0 0 .2rem; padding: 0; border: 0; font-size: 1rem; }
.answer p { margin: 0 0 .3rem; font-size: 1.05rem; overflow-wrap: anywhere; }
.answer.no p strong { color: var(--warn); }
.answer.yes p strong { color: var(--good); }
.answer ul { margin: 0 0 .3rem; padding-left: 1.1rem; color: var(--grey); font-size: .9rem; }
.answer li { overflow-wrap: anywhere; }
code { font: .92em "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.wide { overflow-x: auto; }
.many tbody th { white-space: nowrap; }
.off { border-left: 4px solid var(--warn); background: var(--warm); padding: .7rem 1.1rem; }
.note { color: var(--grey); font-size: .88rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--grey); font-size: .88rem; padding-bottom: .4rem; }
th, td { padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th { border-bottom: 1.5px solid var(--grey); color: var(--grey); font-weight: 600; }
tbody th { font-weight: 400; }
td.n, th.n { text-align: right; white-space: nowrap; padding-right: 1.4rem; }
td.hit { font-weight: 700; }
tr.over td, tr.over th { color: var(--warn); font-weight: 700; }
.key tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
  column-gap: 2.4rem; }
.key tr { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--line); }
.key th, .key td { border: 0; padding-right: 0; }
.key th { color: var(--grey); }
.key td { font-weight: 600; text-align: right; }
td.w { white-space: nowrap; }
.r td.n { border: solid var(--paper); border-width: 1px 2px; padding-left: .7rem; padding-right: .7rem; }
.r td[style], .r td[style] small { color: #1f2933; }
.r small { display: block; color: var(--ink); font-weight: 400; font-size: .82em; }
.dense { font-size: .68rem; }
.dense th, .dense td.n, .dense th.n { padding-right: .3rem; white-space: nowrap; }
figure { margin: .8rem 0 1.2rem; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round; }
figcaption { color: var(--grey); font-size: .88rem; margin-top: .4rem; }
ul.plain { padding-left: 1.1rem; margin: .4rem 0 1rem; }
ul.plain li { margin: .25rem 0; overflow-wrap: anywhere; }
dl { margin: .4rem 0; font-size: .92rem; }
dt { font-weight: 600; float: left; clear: left; width: 11rem; }
dd { margin: 0 0 .4rem 11.5rem; }
details { border: 1px solid var(--line); padding: .6rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { margin: .7rem 0 0; font: .8rem/1.45 "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin-top: 2.6rem; border-top: 1px solid var(--line); padding-top: .8rem; color: var(--grey);
  font-size: .82rem; }
@media screen and (max-width: 40rem) {
  main { padding: 1.2rem .9rem 2rem; }
  h1 { font-size: 1.45rem; }
  figure svg { min-width: 34rem; }
  .many table { min-width: 32rem; }
  dt { float: none; width: auto; }
  dd { margin: 0 0 .5rem; }
}
@page { size: A4; margin: 17mm 16mm 18mm; }
@media print {
  html { font-size: 10pt; }
  body { font-size: 10pt; }
  .lead { font-size: 11pt; }
  .answer { padding: .35rem .8rem .1rem; margin-bottom: .4rem; }
  .answer p { font-size: 10pt; margin-bottom: .15rem; }
  .answer ul { font-size: 8.5pt; line-height: 1.35; margin-bottom: .15rem; }
  .key tbody { grid-template-columns: 1fr 1fr; }
  main { max-width: none; padding: 0; }
  h2 { margin-top: 1.5rem; }
  h2, h3, caption { break-after: avoid; }
  figure, .wide { overflow: visible; }
  figure, table, .answer, .off, tr, details { break-inside: avoid; page-break-inside: avoid; }
  section.whole { break-inside: avoid; page-break-inside: avoid; }
  thead { display: table-header-group; }
  details:not([open]) { display: none; }
}
"""
STYLE = STYLE.replace("NIGHT", night_colours())

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: {{ kind }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="kicker">{{ kind }}</p>
<h1>{{ title }}</h1>
<p class="sub">{{ sub }}</p>
{% block badges %}{% endblock %}
</header>
{% block body %}{% endblock %}
<footer>{{ foot }} This page loads nothing from anywhere.</footer>
</main>
</body>
</html>
"""


def render(body: str, context: Mapping[str, Any], *, kind: str, extra_style: str = "") -> str:
    """A whole page.

    Args:
        body: a template that extends ``frame``.
        context: ``title``, ``sub``, ``foot`` and what the body names.
        kind: what the page is, such as ``run report``.
        extra_style: CSS of this page alone.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=DictLoader({"frame": FRAME, "page": body}), trim_blocks=True
    )
    environment.filters["code"] = with_code
    style = Markup(STYLE + extra_style)
    return environment.get_template("page").render(context, kind=kind, style=style)


def with_code(text: str) -> Markup:
    """Escaped text in which what stands between backticks is a command."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def date_text(moment: datetime) -> str:
    """``29 November 2026, 23:37 UTC``."""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
