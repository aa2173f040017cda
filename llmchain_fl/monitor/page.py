"""The monitor's page: one HTML with its drawings, no script, nothing loaded, no text of the stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from llmchain_fl.monitor.states import State
from llmchain_fl.monitor.topic import Topic
from llmchain_fl.monitor.watch import Watch
from llmchain_fl.report.template import render

WIDTH, HEIGHT = 640, 150
LEFT, TOP, BOTTOM = 44, 10, 18
STATES = {
    State.WARM_UP: "learning what is usual",
    State.OK: "as usual",
    State.WATCH: "watched: something may change",
    State.ALARM: "alarm",
    State.HOLD: "alarm, calm by now",
}
EXTRA = """
.state { display: inline-block; min-width: 5.4rem; padding: .05rem .6rem; border-radius: 1rem; font-size: .82rem;
  text-align: center; border: 1px solid var(--line); white-space: nowrap; }
.state.alarm { background: var(--warn); color: var(--paper); border-color: var(--warn); font-weight: 700; }
.state.hold, .state.watch { border-color: var(--warn); color: var(--warn); }
.state.ok { border-color: var(--good); color: var(--good); }
.rates { font-size: 12px; }
.rates text { fill: var(--grey); font: 11px "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.rates .frame { stroke: var(--line); fill: none; }
.rates .usual { stroke: var(--grey); stroke-dasharray: 4 4; fill: none; }
.rates .rate { stroke: var(--accent); stroke-width: 1.8; fill: none; }
.rates .off { fill: var(--warn); stroke: none; opacity: .18; padding: 0; }
.rates circle { fill: var(--accent); }
@media screen and (max-width: 40rem) {
  figure svg.rates { min-width: 0; }
  .rates text { font-size: 15px; }
}
"""
BODY = """{% extends "frame" %}
{% block badges %}<ul class="badges">{% for badge in badges %}<li>{{ badge }}</li>{% endfor %}</ul>{% endblock %}
{% block body %}
<section id="now"><div class="answer {{ 'no' if alarmed else 'yes' }}"><h2>Now</h2>
<p><strong>{{ now }}</strong></p></div></section>
<section id="topics"><h2>Topics</h2>
{% for topic in topics %}
<h3>{{ topic.name }} <span class="state {{ topic.state }}">{{ topic.words }}</span></h3>
<p class="note">{{ topic.line }}</p>
{% if topic.plot %}<figure>{{ topic.plot }}</figure>{% endif %}
{% endfor %}
<p class="note">Each point: the share of the watched labels among {{ window }} texts. Dashed: the usual rate at most.
Shaded: alarm.</p>
</section>
{% if drift %}
<section id="inputs"><h2>What texts look like</h2>
<p>{{ drift.line }}</p>
{% if drift.plot %}<figure>{{ drift.plot }}</figure>{% endif %}
</section>
{% endif %}
<section id="notices"><h2>Alarms</h2>
{% if notices %}
<div class="wide many"><table><thead><tr><th scope="col">when (UTC)</th><th scope="col">what</th></tr></thead><tbody>
{% for when, words in notices %}<tr><td class="w">{{ when }}</td><td>{{ words }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}<p>There was none.</p>{% endif %}
</section>
{% endblock %}
"""


def page(watch: Watch) -> str:
    """As it is now."""
    limits, alarmed = watch.settings.limits, watch.alarmed
    kinds = {True: "a rise", False: "a fall"}[limits.direction == "rise"]
    context: dict[str, Any] = {
        "title": ", ".join(watch.settings.watch),
        "sub": f"{watch.texts:,} texts, {watch.windows:,} windows",
        "foot": "Counts and rates of this site's own stream: never send them elsewhere.",
        "badges": [
            f"{kinds} of {100 * limits.least_change:g} points matters",
            f"one false alarm in {limits.between:,.0f} windows of a topic at most",
            *([f"{watch.bad_lines:,} lines could not be read"] if watch.bad_lines else []),
        ],
        "alarmed": alarmed,
        "now": f"Alarm: {', '.join(alarmed)}" if alarmed else "No alarm.",
        "topics": [_topic(one) for one in watch.topics.values()],
        "window": limits.window,
        "drift": _drift(watch),
        "notices": [(_when(one.at), one.words()) for one in reversed(watch.notices)],
    }
    return render(BODY, context, kind="Monitor", extra_style=EXTRA)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _topic(topic: Topic) -> dict[str, Any]:
    windows, state = list(topic.windows), topic.alarm.state
    usual = topic.usual
    line = "No window is full yet." if not windows else f"Window {windows[-1].number}: {windows[-1].rate:.1%}"
    if windows and usual is not None:
        words = "at most" if topic.limits.direction == "rise" else "at least"
        line += f", usual {words} {usual:.1%}, {windows[-1].level:.0%} of an alarm"
    passed = sum(one.passed_over for one in windows)
    line += f"; {passed:,} texts of busy sources passed over" if passed else ""
    off = [one.state in (State.ALARM, State.HOLD) for one in windows]
    plot = _plot([one.rate for one in windows], usual, off, percent=True)
    return {"name": topic.name, "state": state.value, "words": STATES[state], "line": line, "plot": plot}


def _drift(watch: Watch) -> dict[str, Any] | None:
    if watch.reference is None:
        return None
    drifts = list(watch.drifts)
    if not drifts:
        return {"line": "No window is full yet.", "plot": Markup("")}
    line = f"Distance {drifts[-1].distance:.1f} from the public texts; about 1 is usual, {STATES[watch.inputs.state]}."
    limit = watch.settings.limits.drift_chance
    return {"line": line, "plot": _plot([one.distance for one in drifts], 1.0, [d.chance < limit for d in drifts])}


def _plot(values: Sequence[float], usual: float | None, off: Sequence[bool], *, percent: bool = False) -> Markup:
    """One line over windows; everything in it is a number of ours."""
    if not values:
        return Markup("")
    top = 1.15 * max(*values, usual or 0.0, 0.01)
    step = (WIDTH - LEFT - 8) / max(1, len(values) - 1)

    def at(place: int, value: float) -> str:
        return f"{LEFT + place * step:.1f},{TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM):.1f}"

    def label(value: float) -> str:
        return f"{value:.0%}" if percent else f"{value:.1f}"

    base = HEIGHT - BOTTOM
    shaded = "".join(
        f'<rect class="off" x="{LEFT + (place - 0.5) * step:.1f}" y="{TOP}" width="{step:.1f}" height="{base - TOP}"/>'
        for place, one in enumerate(off) if one
    )  # fmt: skip
    line = (
        ""
        if usual is None
        else f'<polyline class="usual" points="{at(0, usual)} {WIDTH - 8},{at(0, usual).split(",")[1]}"/>'
    )
    dots = "".join(
        '<circle r="2.2" cx="{}" cy="{}"/>'.format(*at(place, value).split(",")) for place, value in enumerate(values)
    )
    return Markup(
        f'<svg class="rates" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{len(values)} windows">'
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - 8}" height="{base - TOP}"/>{shaded}'
        f'<text x="{LEFT - 6}" y="{TOP + 10}" text-anchor="end">{label(top)}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{label(0)}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">the last {len(values)} windows</text>'
        f'{line}<polyline class="rate" points="{" ".join(at(i, v) for i, v in enumerate(values))}"/>{dots}</svg>'
    )
