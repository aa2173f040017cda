"""What stands on the page of a run, as a Jinja template inside the frame of ``report/template.py``."""

from __future__ import annotations

BODY = """{% extends "frame" %}
{% macro more(count, file) %}{% if count %}
<p class="note">and {{ "{:,}".format(count) }} more; {{ file }} has them all.</p>
{% endif %}{% endmacro %}
{% macro plot(svg, text) %}{% if svg %}<figure>{{ svg }}<figcaption>{{ text }}</figcaption></figure>{% endif %}
{% endmacro %}
{% block badges %}
{% if words_of_author %}<p class="words">“{{ words_of_author }}”</p>{% endif %}
<ul class="badges">{% for badge in badges %}<li>{{ badge }}</li>{% endfor %}</ul>
{% endblock %}
{% block body %}
<section id="answers">
{% if stopped %}<p class="lead off">{{ stopped }}</p>{% endif %}
<p class="lead">{{ lead }}</p>
{% for answer, mark in answers %}
<div class="answer {{ mark }}">
<h2>{{ answer.question }}</h2>
<p><strong>{{ answer.short | code }}</strong></p>
{% if answer.lines %}
<ul>{% for line in answer.lines %}<li>{{ line | code }}</li>{% endfor %}</ul>
{% endif %}
</div>
{% endfor %}
</section>

<section id="numbers" class="whole">
<h2>Key numbers</h2>
<table class="key"><tbody>
{% for label, value in numbers %}
<tr><th scope="row">{{ label }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table>
</section>

<section id="kept">
<h2>Stage by stage</h2>
<ul class="plain">
{% for stage in stages %}
<li>{{ stage.head }}
{% if stage.lines %}
<ul>{% for line in stage.lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
</li>
{% else %}
<li>No stage has begun.</li>
{% endfor %}
</ul>
{% if plots.scores %}{{ plot(plots.scores, captions.scores) }}{% else %}<p>No score was measured.</p>{% endif %}
{% if matrix %}
<p class="note">The {{ metric }} of each task when a stage had ended. Read a column downwards to see a task before, at
and after its own stage. Darker is better; bold: the stage's own task; ▼ and ▲: clearly worse and clearly better than at
the end of its own stage{{ ", in points" if unit == "share" }}.</p>
<div class="wide"><table class="r{% if tasks | length > 8 %} dense{% endif %}">
<thead><tr><th scope="col"></th>{% for task in tasks %}
<th scope="col" class="n">{{ task if tasks | length <= 8 else loop.index }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for label, cells in matrix %}
<tr><th scope="row">{{ label }}</th>
{% for cell in cells %}<td class="n{{ ' hit' if cell.own else '' }}"
{%- if cell.colour %} style="background:{{ cell.colour }}"{% endif %}>{{ cell.text }}
{% if cell.mark %}<small>{{ cell.mark }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if probes %}
<h3>What is not taught</h3>
<p class="note">Public probe sets, scored beside the stages.</p>
<ul class="plain">{% for sentence in probes %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endif %}
{% if averaging %}
<h3>What averaging cost</h3>
<p class="note">On each site's own held-out records of the stage: its model just before its update left, and the common
model just after. Simulation only.</p>
<ul class="plain">{% for sentence in averaging %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endif %}
{% if guards %}
<h3>What the guards did</h3>
<div class="wide many"><table>
<thead><tr><th scope="col">guard</th><th scope="col">what</th><th scope="col" class="n">last</th>
<th scope="col" class="n">mean</th><th scope="col" class="n">range</th>
<th scope="col" class="n">rounds</th></tr></thead>
<tbody>
{% for line in guards %}
<tr><td class="w">{{ line.guard }}</td><td>{{ line.what }}</td><td class="n">{{ line.last }}</td>
<td class="n">{{ line.mean }}</td><td class="n">{{ line.span }}</td><td class="n">{{ line.rounds }}</td></tr>
{% endfor %}
</tbody></table></div>
{{ plot(plots.guards, captions.guards) }}
{% endif %}
</section>

{% if who or many %}
<section id="sites">
<h2>The sites</h2>
{% if many %}
<div class="wide many"><table>
<caption>Sites together, as last recorded: they are too many for a line each.</caption>
<thead><tr><th scope="col">number</th><th scope="col" class="n">round</th><th scope="col" class="n">sites</th>
<th scope="col" class="n">lowest</th><th scope="col" class="n">a quarter</th><th scope="col" class="n">median</th>
<th scope="col" class="n">three quarters</th><th scope="col" class="n">highest</th><th scope="col">highest at</th></tr>
</thead><tbody>
{% for line in many %}
<tr><th scope="row">{{ line[0] }}</th>{% for cell in line[1:8] %}<td class="n">{{ cell }}</td>{% endfor %}
<td>{{ line[8] }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if who %}
<div class="wide many"><table>
<thead><tr><th scope="col">site</th><th scope="col" class="n">rounds with an update</th>
<th scope="col" class="n">refused</th><th scope="col" class="n">not connected</th>
<th scope="col" class="n">{{ metric }} on its own records</th></tr></thead>
<tbody>
{% for site, rounds, no, away, score in who %}
<tr><th scope="row">{{ site }}</th><td class="n">{{ rounds }}</td><td class="n">{{ no }}</td>
<td class="n">{{ away }}</td><td class="n">{{ score }}</td></tr>
{% endfor %}
</tbody></table></div>
{{ more(who_more, "metrics.jsonl") }}
{% endif %}
{{ plot(plots.sites, captions.sites) }}
</section>
{% endif %}

{% if suite %}
<section id="suite" class="whole">
<h2>Beyond the score</h2>
<p class="note">By llmchain-fl evaluate RUN --suite, on public records; all numbers are in suite.json.</p>
<table class="key"><tbody>
{% for what, words in suite %}<tr><th scope="row">{{ what }}</th><td>{{ words }}</td></tr>
{% endfor %}
</tbody></table>
</section>
{% endif %}

<section id="privacy">
<h2>What privacy was spent</h2>
{% if spending.private %}
{{ plot(plots.epsilon, captions.epsilon) }}
<p class="note">{{ mechanism }} Epsilon covers everything that left the sites: updates and, where sites sent
scores, those, with noise in them. The scores of the tasks were measured on public records and cost nothing.</p>
<div class="wide many"><table>
<caption>Spending of each site: {{ spending.guarantee }}{% if spending.target is not none %},
target epsilon {{ "%g" % spending.target }}{% endif %}.</caption>
<thead><tr><th scope="col">site</th><th scope="col" class="n">epsilon</th>
<th scope="col" class="n">epsilon by RDP (check)</th><th scope="col" class="n">rounds</th>
<th scope="col" class="n">steps</th><th scope="col">target</th></tr></thead>
<tbody>
{% for row in spent %}
<tr{% if row.over %} class="over"{% endif %}><th scope="row">{{ row.site }}</th><td class="n">{{ row.epsilon }}</td>
<td class="n">{{ row.rdp }}</td><td class="n">{{ row.rounds }}</td><td class="n">{{ row.steps }}</td>
<td>{{ row.target }}</td></tr>
{% else %}
<tr><td colspan="6">No site has spent anything yet.</td></tr>
{% endfor %}
</tbody></table></div>
{{ more(spent_more, "privacy.json") }}
{% else %}
<p class="off"><strong>No privacy was asked for.</strong> The updates are not protected by differential privacy:
nothing limits what they, or the finished adapter, can give away about a single record.</p>
{% endif %}
</section>

<section id="traffic" class="whole">
<h2>What was sent</h2>
{% if plots.traffic %}{{ plot(plots.traffic, captions.traffic) }}{% else %}<p>No traffic was recorded.</p>{% endif %}
</section>

<section id="refused">
<h2>Refused updates</h2>
{% if refused %}
<div class="wide many"><table>
<caption>Sites that were asked, and whose update was not summed.</caption>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">reason</th></tr></thead>
<tbody>
{% for round, site, reason in refused %}
<tr><td>{{ round }}</td><td>{{ site }}</td><td>{{ reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{{ more(refused_more, "metrics.jsonl") }}
{% else %}
<p>No update was refused.</p>
{% endif %}
{% if aside %}
<h3>Sites set aside</h3>
<div class="wide many"><table>
<caption>A site that fails several rounds in a row is not asked for a while, and then tried again.</caption>
<thead><tr><th scope="col">round</th><th scope="col">site</th><th scope="col">what happened</th>
<th scope="col" class="n">times so far</th></tr></thead><tbody>
{% for round, site, reason, until, times in aside %}
<tr><td>{{ round }}</td><td>{{ site }}</td>
<td>{% if until %}set aside until round {{ until }} ({{ reason }}){% else %}back{% endif %}</td>
<td class="n">{{ times }}</td></tr>
{% endfor %}
</tbody></table></div>
{{ more(aside_more, "metrics.jsonl") }}
{% endif %}
{% if plots.norms %}
<h3>Size of each update</h3>
{{ plot(plots.norms, captions.norms) }}
{% endif %}
</section>

<section id="settings">
<h2>Settings and versions</h2>
<p class="note">This page was written with {{ versions }}.</p>
<details open><summary>Words used on this page</summary><dl>
{% for word, text in words %}<div><dt>{{ word }}</dt><dd>{{ text }}</dd></div>{% endfor %}
</dl></details>
<details><summary>The settings of the run, as resolved</summary><pre>{{ config }}</pre></details>
</section>
{% endblock %}
"""
