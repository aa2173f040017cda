"""One self-contained page about a comparison: opens offline, loads nothing, prints on A4; looks like a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from llmchain_fl.compare.held import held_equal
from llmchain_fl.compare.measures import measure
from llmchain_fl.compare.outcome import Outcome, metrics_of
from llmchain_fl.compare.plan import Axis, Comparison, simulate_command
from llmchain_fl.compare.spread import BEST, TIED, Groups
from llmchain_fl.compare.table import Table
from llmchain_fl.compare.verdict import verdict
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report.page import versions
from llmchain_fl.report.template import date_text, render
from llmchain_fl.report.wording import count

TITLES = {
    "scores-against-bytes": "Score against bytes",
    "learned-against-forgotten": "Learned against forgotten",
    "learned-and-forgotten-by-epsilon": "Learned and forgotten by epsilon",
}
CAPTIONS = {
    "scores-against-bytes": "Score against everything that was sent, both ways, over the whole run (logarithmic). Each "
    "point is a mean, with its standard deviation. {way} and to the left is better.",
    "learned-against-forgotten": "What was learned against what was forgotten again. {way} and to the left is better; "
    "a guard that only moves along the line trades one for the other.",
    "learned-and-forgotten-by-epsilon": "The same at each level of privacy; no privacy on the right.",
}
WORDS = (
    ("cell", "One run: a combination of labels with one seed."),
    ("rule", "How the server makes one adapter of what the sites send."),
    ("seed", "Decides split, start of the adapter and batches; the same for all cells that are compared."),
    ("refused", "The software does not run this combination of settings, for the reason given."),
    ("epsilon, delta", "The two numbers of a differential privacy guarantee; smaller is stronger, for both."),
)

LOOK = """
td.hit { font-weight: 700; color: var(--accent); }
td.tie { font-weight: 600; }
.wide table { font-size: .86rem; }
.wide td.n, .wide th.n { padding-right: .5rem; padding-left: .4rem; }
.wide thead th.n { white-space: normal; vertical-align: bottom; }
.wide tbody th, .wide thead th { white-space: nowrap; padding-right: 1rem; overflow-wrap: normal; }
.held th:last-child, .held td:last-child { min-width: 6rem; }
section p.note { margin: 0 0 .3rem; }
.answer ul.said { color: var(--ink); font-size: 1rem; }
@media print { .wide table { font-size: 8pt; } }
"""

PAGE = """{% extends "frame" %}
{%- macro as_table(table) %}
<section class="whole">
<h2>{{ table.title[0] | upper }}{{ table.title[1:] }}</h2>
<div class="wide"><table>
<thead><tr>{% for name in table.labels %}<th scope="col">{{ name }}</th>{% endfor %}
{%- for name in table.columns %}<th scope="col" class="n">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for labels, entries in table.rows %}
<tr>{% for label in labels %}<th scope="row">{{ label }}</th>{% endfor %}
{%- for entry in entries %}<td class="n{{ classes[entry.mark] }}">{{ entry }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- for note in table.notes %}
<p class="note">{{ note }}</p>
{%- endfor %}
</section>
{%- endmacro %}
{% block body %}
<div class="answer">
<h2>What this says</h2>
<ul class="said">
{% for sentence in verdict %}
<li>{{ sentence }}</li>
{% else %}
<li>Nothing is compared: fewer than two rows have a number.</li>
{% endfor %}
</ul>
</div>
{%- for paragraph in about %}
<p>{{ paragraph }}</p>
{%- endfor %}

{{ as_table(tables[0]) }}
{%- for name, svg in plots.items() %}
<section class="whole">
<h2>{{ titles[name] }}</h2>
<figure>{{ svg }}<figcaption>{{ captions[name] }}</figcaption></figure>
</section>
{%- endfor %}
{%- for table in tables[1:] %}
{{ as_table(table) }}
{%- endfor %}

<section>
<h2>What was held equal</h2>
<table class="held">
<thead><tr><th scope="col"></th><th scope="col">the same in every cell</th><th scope="col">differs</th></tr></thead>
<tbody>
{%- for group, equal, differs in held %}
<tr><th scope="row">{{ group }}</th><td>{{ equal or "–" }}</td><td>{{ differs or "–" }}</td></tr>
{%- endfor %}
</tbody></table>
{%- for axis, labels in axes %}
<h3>{{ axis }}</h3>
<ul class="plain">
{%- for label, settings in labels %}
<li><strong>{{ label }}</strong>: {{ settings or "as the scenario" }}</li>
{%- endfor %}
</ul>
{%- endfor %}
</section>

{%- if left %}
<section>
<h2>Cells without a number</h2>
<ul class="plain">
{%- for title, status, reason in left %}
<li>{{ title }}: <strong>{{ status }}</strong>, {{ reason }}</li>
{%- endfor %}
</ul>
</section>
{%- endif %}

<section>
<h2>Commands, words and versions</h2>
<p class="note">This page was written with {{ versions }}.</p>
<pre>{{ command }}</pre>
<details open><summary>Words used on this page</summary><dl>
{%- for word, text in words %}<div><dt>{{ word }}</dt><dd>{{ text }}</dd></div>{% endfor %}
</dl></details>
<details><summary>Each cell by itself</summary><pre>
{%- for line in commands %}
{{ line }}
{%- endfor %}</pre></details>
</section>
{% endblock %}
"""


def page(
    comparison: Comparison,
    configs: Sequence[RunConfig],
    outcomes: Sequence[Outcome],
    tables: Sequence[Table],
    plots: Mapping[str, str],
    command: str,
) -> str:
    """The page.

    Args:
        comparison: what was asked.
        configs: of its finished cells.
        outcomes: what became of all of them.
        tables: as in ``table.md``.
        plots: name -> SVG; empty ones are left out.
        command: the command line that does this again.
    """
    context = _context(comparison, configs, outcomes) | {
        "tables": tables,
        "plots": {name: Markup(svg) for name, svg in plots.items() if svg},
        "command": command,
    }
    return render(PAGE, context, kind="Comparison", extra_style=LOOK)


def _context(comparison: Comparison, configs: Sequence[RunConfig], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    seeds = sorted({outcome.seed for outcome in finished})
    ordered = sorted(outcomes, key=lambda outcome: outcome.cell.slug)
    return {
        "title": comparison.title,
        "sub": f"{count(len(finished), 'run')} over {count(len(seeds), 'seed')}, "
        f"results as of {date_text(datetime.now(UTC))}",
        "foot": "All numbers are from the cells of this folder; results.json holds every one of them.",
        "verdict": verdict(Groups.of(comparison, outcomes)),
        "about": [part for part in comparison.about.split("\n\n") if part.strip()],
        "classes": {BEST: " hit", TIED: " tie", "": ""},
        "captions": {name: _caption(name, comparison.score, metrics_of(outcomes)) for name in CAPTIONS},
        "titles": TITLES,
        "held": held_equal(configs, seeds),
        "axes": [(axis.name, _labels(axis, outcomes)) for axis in comparison.axes],
        "left": [(o.cell.title, o.status, o.reason) for o in ordered if o.status != "finished"],
        "words": WORDS,
        "commands": [simulate_command(comparison.scenario, outcome.settings) for outcome in ordered],
        "versions": versions(),
    }


def _caption(plot: str, score: str, scores: Mapping[str, Metric]) -> str:
    """The words under a plot; a loss is better further down."""
    upright = score if plot == "scores-against-bytes" else "la"
    return CAPTIONS[plot].format(way="Down" if measure(upright).lower_is_better(scores) else "Up")


def _labels(axis: Axis, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """The labels that were played, and what each stands for."""
    there = {outcome.labels[axis.name] for outcome in outcomes}
    return [(label, ", ".join(lines)) for label, lines in axis.values.items() if label in there]
