"""The page as a Jinja template, style included. A Python file and no ``.html``, so that it travels with the code.

Everything put in is escaped, save the plots (``report/figure.py`` makes them and escapes what stands in them).
"""

from __future__ import annotations

STYLE = """
:root { --ink: #1f2933; --grey: #52606d; --line: #d9e0e6; --band: #f5f7f9; --accent: #1b4f72; --warn: #a84300; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0; background: #fff; color: var(--ink);
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
.short { background: var(--band); border-left: 4px solid var(--accent); padding: 1.2rem 1.4rem .6rem; }
.short ul { list-style: none; margin: 0; padding: 0; }
.short li { padding: .35rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.off { border-left: 4px solid var(--warn); background: #fdf6f1; padding: .7rem 1.1rem; }
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
.key tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); column-gap: 2.4rem; }
.key tr { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--line); }
.key th, .key td { border: 0; padding-right: 0; }
.key th { color: var(--grey); }
.key td { font-weight: 600; text-align: right; }
td.w { white-space: nowrap; }
.r td.n { border: solid #fff; border-width: 1px 2px; padding-left: .7rem; padding-right: .7rem; }
.r small { display: block; color: var(--ink); font-weight: 400; font-size: .82em; }
.dense { font-size: .68rem; }
.dense th, .dense td.n, .dense th.n { padding-right: .3rem; white-space: nowrap; }
figure { margin: .8rem 0 1.2rem; }
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
@page { size: A4; margin: 17mm 16mm 18mm; }
@media print {
  html { font-size: 10pt; }
  body { font-size: 10pt; }
  .lead { font-size: 12pt; }
  .key tbody { grid-template-columns: 1fr 1fr; }
  main { max-width: none; padding: 0; }
  h2 { margin-top: 1.5rem; }
  h2, h3, caption { break-after: avoid; }
  figure, table, .short, .off, tr, details { break-inside: avoid; page-break-inside: avoid; }
  section.whole { break-inside: avoid; page-break-inside: avoid; }
  thead { display: table-header-group; }
  details:not([open]) { display: none; }
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: run report</title>
<style>{{ style }}</style>
</head>
<body>
<main>
{%- macro plot(svg, text) %}{% if svg %}<figure>{{ svg }}<figcaption>{{ text }}</figcaption></figure>{% endif %}
{%- endmacro %}
<header>
<p class="kicker">Run report</p>
<h1>{{ title }}</h1>
<p class="sub">Run {{ name }}, results as of {{ date }}</p>
</header>

<section id="summary">
<div class="short">
<p class="lead{{ ' off' if stopped else '' }}">{{ lead }}</p>
<ul>
{%- for label, text in sentences %}
<li>{% if label %}<strong>{{ label }}:</strong> {% endif %}{{ text }}</li>
{%- endfor %}
</ul>
</div>
</section>

<section id="numbers" class="whole">
<h2>Key numbers</h2>
<table class="key"><tbody>
{%- for label, value in numbers %}
<tr><th scope="row">{{ label }}</th><td>{{ value }}</td></tr>
{%- endfor %}
</tbody></table>
</section>

<section id="kept">
<h2>{{ "What was kept and what was forgotten" if stages | length > 1 else "What was learned" }}</h2>
<ul class="plain">
{%- for sentence in stages %}
<li>{{ sentence }}</li>
{%- else %}
<li>No stage has begun.</li>
{%- endfor %}
</ul>
{% if plots.scores %}{{ plot(plots.scores, captions.scores) }}{% else %}<p>No score was measured.</p>{% endif %}
{%- if matrix %}
<table class="r{% if tasks | length > 8 %} dense{% endif %}">
<caption>The {{ metric }} of each task when a stage had ended. Read a column downwards to see a task being learned, and
kept or forgotten. Darker is better; bold: the stage's own task; ▼ and ▲: worse and better than when it was
learned{{ ", in points" if metric == "accuracy" else "" }}.</caption>
<thead><tr><th scope="col"></th>{% for task in tasks %}
<th scope="col" class="n">{{ task if tasks | length <= 8 else loop.index }}</th>
{%- endfor %}</tr></thead>
<tbody>
{%- for label, cells in matrix %}
<tr><th scope="row">{{ label }}</th>
{%- for cell in cells %}<td class="n{{ ' hit' if cell.own else '' }}"
{%- if cell.colour %} style="background:{{ cell.colour }}"{% endif %}>{{ cell.text }}
{%- if cell.mark %}<small>{{ cell.mark }}</small>{% endif %}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table>
{%- endif %}
{%- if probes %}
<h3>What is not taught</h3>
<p class="note">Public probe sets, scored beside the stages.</p>
<ul class="plain">{% for sentence in probes %}<li>{{ sentence }}</li>{% endfor %}</ul>
{%- endif %}
{%- if averaging %}
<h3>What averaging cost</h3>
<p class="note">On each site's own held-out records of the stage: its model just before its update left, and the common
model just after. Simulation only.</p>
<ul class="plain">{% for sentence in averaging %}<li>{{ sentence }}</li>{% endfor %}</ul>
{%- endif %}
{%- if guards %}
<h3>What the guards did</h3>
<table>
<thead><tr><th scope="col">guard</th><th scope="col">what</th><th scope="col" class="n">last</th>
<th scope="col" class="n">mean</th><th scope="col" class="n">range</th>
<th scope="col" class="n">rounds</th></tr></thead>
<tbody>
{%- for line in guards %}
<tr><td class="w">{{ line.guard }}</td><td>{{ line.what }}</td><td class="n">{{ line.last }}</td>
<td class="n">{{ line.mean }}</td><td class="n">{{ line.span }}</td><td class="n">{{ line.rounds }}</td></tr>
{%- endfor %}
</tbody></table>
{{ plot(plots.guards, captions.guards) }}
{%- endif %}
</section>

{% if plots.sites %}
<section id="sites" class="whole">
<h2>How each site fares</h2>
{{ plot(plots.sites, captions.sites) }}
</section>
{% endif %}

<section id="privacy">
<h2>What privacy was spent</h2>
{%- if spending.private %}
<p>{{ meaning }}</p>
{{ plot(plots.epsilon, captions.epsilon) }}
<p class="note">{{ mechanism }} Epsilon covers everything that left the sites: updates and, where sites sent
scores, those, with noise in them. The scores of the tasks were measured on public records and cost nothing.</p>
<table>
<caption>Spending of each site: {{ spending.guarantee }}{% if spending.target is not none %},
target epsilon {{ "%g" % spending.target }}{% endif %}.</caption>
<thead><tr><th scope="col">site</th><th scope="col" class="n">epsilon</th>
<th scope="col" class="n">epsilon by RDP (check)</th><th scope="col" class="n">rounds</th>
<th scope="col" class="n">steps</th><th scope="col">target</th></tr></thead>
<tbody>
{%- for row in spent %}
<tr{% if row.over %} class="over"{% endif %}><th scope="row">{{ row.site }}</th><td class="n">{{ row.epsilon }}</td>
<td class="n">{{ row.rdp }}</td><td class="n">{{ row.rounds }}</td><td class="n">{{ row.steps }}</td>
<td>{{ row.target }}</td></tr>
{%- else %}
<tr><td colspan="6">No site has spent anything yet.</td></tr>
{%- endfor %}
</tbody></table>
{%- else %}
<p class="off"><strong>No privacy was asked for.</strong> The updates are not protected by differential privacy:
nothing limits what they, or the finished adapter, can give away about a single record.</p>
{%- endif %}
</section>

<section id="traffic" class="whole">
<h2>What was sent</h2>
{% if plots.traffic %}{{ plot(plots.traffic, captions.traffic) }}{% else %}<p>No traffic was recorded.</p>{% endif %}
</section>

<section id="refused">
<h2>Refused updates</h2>
{%- if refused %}
<table>
<caption>Sites that were asked, and whose update was not summed.</caption>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">reason</th></tr></thead>
<tbody>
{%- for round, site, reason in refused %}
<tr><td>{{ round }}</td><td>{{ site }}</td><td>{{ reason }}</td></tr>
{%- endfor %}
</tbody></table>
{%- else %}
<p>No update was refused.</p>
{%- endif %}
{%- if aside %}
<h3>Sites set aside</h3>
<table><caption>A site that fails several rounds in a row is not asked for a while, and then tried again.</caption>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">what happened</th>
<th scope="col" class="n">times so far</th></tr></thead><tbody>
{%- for round, site, reason, until, times in aside %}
<tr><td>{{ round }}</td><td>{{ site }}</td>
<td>{% if until %}set aside until round {{ until }} ({{ reason }}){% else %}back{% endif %}</td>
<td class="n">{{ times }}</td></tr>
{%- endfor %}
</tbody></table>
{%- endif %}
{%- if plots.norms %}
<h3>Size of each update</h3>
{{ plot(plots.norms, captions.norms) }}
{%- endif %}
</section>

<section id="settings">
<h2>Settings and versions</h2>
<p class="note">This page was written with {{ versions }}.</p>
<details open><summary>Words used on this page</summary><dl>
{%- for word, text in words %}<div><dt>{{ word }}</dt><dd>{{ text }}</dd></div>{% endfor %}
</dl></details>
<details><summary>The settings of the run, as resolved</summary><pre>{{ config }}</pre></details>
</section>

<footer>All numbers are from the run directory {{ name }}: metrics.jsonl, privacy.json and config.toml.
This page loads nothing from anywhere.</footer>
</main>
</body>
</html>
"""
