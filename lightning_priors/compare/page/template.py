"""The template of the report, for Jinja with everything escaped."""

from lightning_priors.explain.template import STYLE as SHARED

STYLE = (
    SHARED
    + """\
:root { --first: #8a6d1f; --warm: 47, 125, 79; }
@media (prefers-color-scheme: dark) { :root { --first: #d9b95a; } }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px; }
.charts.one { max-width: 660px; } .charts .card { break-inside: avoid; } svg text { font-size: inherit; fill: inherit; }
.scroll th:first-child { position: sticky; left: 0; background: var(--card); max-width: 14em; }
td.words, th.words { text-align: left; white-space: normal; min-width: 9em; }
td.shade { background: rgba(var(--warm), calc(0.55 * var(--share))); }
tr.first > * { font-style: italic; } td .spread { color: var(--quiet); font-size: 0.88em; }
.same { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 10px; }
.same figure img { width: 100%; } .same figcaption { line-height: 1.3; margin-top: 3px; }
.same figcaption b { display: block; color: var(--text); overflow-wrap: anywhere; }
.image { margin-bottom: 26px; break-inside: avoid; }
details { margin-bottom: 8px; } summary { cursor: pointer; padding: 4px 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; overflow-x: auto;
  font-size: 0.82rem; line-height: 1.4; max-height: 30em; }
@media (max-width: 600px) { .same { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); } }
@media print { :root { --ground: #fff; --card: #fff; --text: #000; --quiet: #444; --line: #bbb; }
  main { max-width: none; padding: 0; } pre { max-height: none; white-space: pre-wrap; } .scroll { overflow: visible; }
  table { font-size: 0.75rem; } h2 { break-after: avoid; } }
"""
)

PAGE = (
    """\
<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ numbers.title }}</title>
<style>
"""
    + STYLE
    + """
</style></head><body><main>
<h1>Comparison: {{ numbers.title }}</h1>
<p class="verdict">{{ numbers.verdict[0] }}</p>
{% for sentence in numbers.verdict[1:] %}<p>{{ sentence }}</p>{% endfor %}

<p class="facts">{{ numbers.finished }} of {{ numbers.asked }} runs{% if numbers.splits > 1 %},
{{ numbers.splits }} drawn splits of the data{% endif %}, seeds {{ numbers.seeds|join(", ") }}.
{% if numbers.data %}{{ numbers.data.name }}: {{ numbers.data.classes|length }} classes, {{ numbers.test_images }} test
images in the first split. {% endif %}Checkpoints are selected by {{ numbers.monitor }} and tested once.</p>

<h2>Ranking</h2>
<div class="scroll"><table><thead><tr><th scope="col">config</th><th scope="col" class="words">needs, beside labels</th>
{% for name in numbers.columns %}<th scope="col">{{ name }}</th>{% endfor %}
<th scope="col">{{ numbers.main }}, minus {{ numbers.reference }}</th></tr></thead><tbody>
{% for config in numbers.configs %}{% set place = loop.index0 %}
<tr{% if config.name == numbers.reference %} class="first"{% endif %}>
<th scope="row">{{ config.rank }}. {{ config.name }}</th>
<td class="words">{{ needs(config) }}</td>
{% for name in numbers.columns %}<td>{{ spread(place, name) }}</td>{% endfor %}
<td>{% if config.name != numbers.reference %}{{ difference(place, numbers.main) }}{% endif %}</td></tr>
{% endfor %}</tbody></table></div>
<p class="quiet">Mean ± standard deviation over the runs. {{ how_to_read }}</p>

<div class="charts">
{% for name in numbers.metrics %}
{% if charts.forest[name] %}<div class="card">{{ charts.forest[name] }}</div>{% endif %}
{% endfor %}
</div>
<p class="quiet">Differences with their intervals; a filled dot is shown by the corrected test.</p>

<h2>Every run</h2>
<div class="charts">{% for name in numbers.metrics %}<div class="card">{{ charts.dots[name] }}</div>{% endfor %}</div>
<p class="quiet">A dot for each run, the same mark for runs of the same split; the line is the mean.</p>

{% if charts.scatter %}<h2>Gain against what is paid and what is looked at</h2>
<div class="charts">{% for chart in charts.scatter %}<div class="card">{{ chart }}</div>{% endfor %}</div>
<p class="quiet">The numbers are the ranks in the table above.</p>{% endif %}

{% if charts.curves %}<h2>Learning curves</h2>
<div class="charts one"><div class="card">{{ charts.curves }}</div></div>
<p class="quiet">{{ numbers.monitor }} after each epoch, mean over the runs, with {{ numbers.reference }} behind it.</p>
{% endif %}

{% if groups %}<h2>Right answers by {{ "group" if numbers.data.groups else "class" }}</h2>
<div class="scroll"><table><thead><tr><th scope="col">config</th>
{% for name in groups %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for config in numbers.configs %}{% if config.by_group %}{% set place = loop.index0 %}
<tr><th scope="row">{{ config.name }}</th>
{% for name in groups %}{% if name in config.by_group %}
<td class="shade" style="--share: {{ '%.3f' % config.by_group[name] }}">\
{{ value("configs.%d.by_group.%s" % (place, name), config.by_group[name]) }}</td>
{% else %}<td></td>{% endif %}{% endfor %}</tr>
{% endif %}{% endfor %}</tbody></table></div>
{% for config in numbers.configs %}{% if config.confusion %}
<details><summary>Answers of {{ config.name }}</summary>
<div class="scroll"><table><thead><tr><th scope="col">true class{% if numbers.data.groups %}, group{% endif %}</th>
{% for name in numbers.data.classes %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for line in config.confusion %}<tr><th scope="row">{{ line.class }}{% if line.group %}, {{ line.group }}{% endif %}
</th>{% for count in line.answers %}<td class="shade" style="--share: \
{{ '%.3f' % (count / ([line.answers|sum, 1]|max)) }}">{{ count }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div></details>{% endif %}{% endfor %}{% endif %}

{% if backgrounds %}<h2>With other backgrounds</h2>
<p>{{ what_is_done }} Where the test's own backgrounds disagree with the label as often as they agree, another one
changes little on average, and the worst group says more.</p>
<div class="scroll"><table><thead><tr><th scope="col">config</th><th scope="col">own background</th>
<th scope="col">target alone</th><th scope="col">other background</th><th scope="col">gap</th></tr></thead><tbody>
{% for config in numbers.configs %}{% if config.backgrounds %}{% set found = config.backgrounds %}
{% set place = "configs.%d.backgrounds." % loop.index0 %}<tr><th scope="row">{{ config.name }}</th>
<td>{{ value(place ~ "original", found.original) }}</td><td>{{ value(place ~ "alone", found.alone) }}</td>
<td>{{ value(place ~ "exchanged", found.exchanged) }}</td>
<td>{{ "%+.3f" % (found.original - found.exchanged) }}</td></tr>
{% endif %}{% endfor %}</tbody></table></div>{% endif %}

{% if pictures %}<h2>The same pictures</h2>
<p>Test images of the first split and seed, with the evidence of each network:
<span class="key" style="background:#cd1e23"></span> speaks for {{ warm }},
<span class="key" style="background:#195fbe"></span> {{ cold }};
<span class="key outline"></span> the border of the target.</p>
{% for image in pictures %}<div class="image"><h3>{{ image.label }}{% if image.group %} ({{ image.group }}){% endif %}
</h3><div class="same"><figure><img src="{{ image.picture }}" alt="a test image: {{ image.label }}"><figcaption><b>image
</b></figcaption></figure>
{% for answer in image.answers %}<figure><img src="{{ answer.evidence }}" alt="evidence of {{ answer.config }}">
<figcaption><b>{{ answer.config }}</b><span class="{{ 'is-right' if answer.right else 'is-wrong' }}">{{ answer.label }}
{{ "%.0f" % (100 * answer.probability) }} %</span>{% if answer.inside is not none %},
{{ "%.0f" % (100 * answer.inside) }} % inside{% endif %}</figcaption></figure>
{% endfor %}</div></div>{% endfor %}{% endif %}

{% if sheets %}<h2>Generated labels</h2>
{% for name, sheet in sheets.items() %}<h3>{{ name }}</h3><div class="scroll"><img src="{{ sheet }}"
alt="the images most typical of each generated class of {{ name }}"></div>{% endfor %}{% endif %}

{% if numbers.monitors %}<h2>What the choice of the monitor costs</h2>
<div class="scroll"><table><thead><tr>{% for cell in numbers.monitors[0] %}<th scope="col">{{ cell }}</th>{% endfor %}
</tr></thead><tbody>{% for line in numbers.monitors[1:] %}<tr><th scope="row">{{ line[0] }}</th>
{% for cell in line[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="quiet">Means over all configs of what the checkpoints score that each monitor would have selected.</p>
{% endif %}

<h2>How it was made</h2>
<pre>{{ numbers.command }}</pre>
<p class="quiet">The same command goes on after an interruption and does what is left. Report written on
{{ numbers.written }}. {% for name, each in numbers.versions.items() %}{{ name }} {{ each }}{{ ", " if not loop.last }}
{% endfor %}. {% for name, each in numbers.machine.items() %}{{ name }}: {{ each }}{{ "; " if not loop.last }}
{% endfor %}.</p>
{% for config in numbers.configs %}<details><summary>Configuration of {{ config.name }}</summary>
<p class="quiet">{{ config.options|join(" ") }}</p><pre>{{ config.configuration }}</pre></details>{% endfor %}
<details><summary>Every number of every run</summary><div class="scroll"><table><thead><tr><th scope="col">config</th>
<th scope="col">split</th><th scope="col">seed</th>{% for name in columns_of_runs %}<th scope="col">{{ name }}</th>
{% endfor %}</tr></thead><tbody>{% for config in numbers.configs %}{% for run in config.runs %}
<tr><th scope="row">{{ config.name }}</th><td>{{ run.split }}</td><td>{{ run.seed }}</td>
{% for name in columns_of_runs %}<td>{{ plain(run["values"].get(name)) }}</td>{% endfor %}</tr>{% endfor %}{% endfor %}
</tbody></table></div></details>
</main></body></html>
"""
)
"""What `lightning_priors.compare.page.page` fills."""
