"""The template of the page, for Jinja with everything escaped."""

STYLE = """\
:root { color-scheme: light dark; --ground: #fbfaf7; --card: #fff; --text: #1d2021; --quiet: #66696c; --line: #dedbd3;
  --right: #2f7d4f; --wrong: #c2372f; --bar: #3f6fb0; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181a; --card: #1f2225; --text: #e8e6e1; --quiet: #a0a3a6;
  --line: #3a3e42; --right: #62b884; --wrong: #ef7a70; --bar: #7ba7e0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.15rem; font-weight: 600; color: var(--quiet); margin: 0 0 6px; }
h2 { font-size: 1.25rem; margin: 40px 0 10px; }
h3 { font-size: 1rem; margin: 18px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 75ch; }
.verdict { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: 0 0 14px; overflow-wrap: anywhere; }
.verdict b { display: block; font-size: 0.95rem; color: var(--quiet); }
.quiet, figcaption, .facts { color: var(--quiet); font-size: 0.88rem; overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; align-items: start; }
.card, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: 8px; min-width: 0; }
.card { padding: 14px; } .card h3 { margin-top: 0; }
.scroll { overflow-x: auto; margin-bottom: 16px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.94rem; }
th, td { padding: 7px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; font-weight: 500; max-width: 22em; overflow: hidden; text-overflow: ellipsis; }
thead th, thead th:first-child { font-weight: 600; color: var(--quiet); font-size: 0.85rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--quiet); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } .diagonal { stroke: var(--quiet); stroke-dasharray: 4 4; }
.bar { fill: var(--bar); } svg .right { fill: var(--right); } svg .wrong { fill: var(--wrong); }
.is-right { color: var(--right); font-weight: 600; } .is-wrong { color: var(--wrong); font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 16px; }
.pictures.many { grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); }
figure { margin: 0; } figure .row { display: flex; gap: 6px; margin-bottom: 8px; align-items: flex-start; }
figure img { flex: 1 1 0; min-width: 0; width: 0; height: auto; border-radius: 4px; }
.key { display: inline-block; width: 0.9em; height: 0.9em; border-radius: 2px; vertical-align: -0.1em; }
.outline { border: 2px solid #ffe14d; outline: 1px solid #282828; }
@media (max-width: 600px) { .two, .pictures, .pictures.many { grid-template-columns: minmax(0, 1fr); }
  main { padding: 18px 14px 40px; } .verdict { font-size: 1.2rem; } th, td { padding: 6px 9px; } }
"""

PAGE = (
    """\
{% macro interval(key) %}
{{ points(key ~ ".mean") }}{% if at(key).low is not none %} [{{ points(key ~ ".low") }}, {{ points(key ~ ".high") }}]\
{% endif %}{% endmacro %}
{% macro row(name, key, form, difference) %}
<tr><th scope="row">{{ name }}</th>{% for run in runs %}<td>{{ form(run ~ "." ~ key) }}</td>{% endfor %}
{% if runs|length > 1 %}<td>{% if difference %}{{ interval("difference." ~ difference) }}{% endif %}</td>{% endif %}
</tr>
{% endmacro %}
{% macro heads() %}
{% for run in runs %}<th scope="col">{{ numbers[run].name }}</th>{% endfor %}
{% if runs|length > 1 %}<th scope="col">difference, points</th>{% endif %}
{% endmacro %}
{% macro parts(title, key, differences) %}
<div class="scroll"><table><thead><tr><th scope="col">{{ title }}</th><th scope="col">images</th>
{% for run in runs %}<th scope="col">right{% if runs|length > 1 %}, {{ numbers[run].name }}{% endif %}</th>
{% if numbers[run].evidence %}<th scope="col">inside</th>{% endif %}{% endfor %}
{% if differences %}<th scope="col">difference, points</th>{% endif %}</tr></thead><tbody>
{% for each in numbers.run[key] %}
<tr><th scope="row">{{ each.name }}</th><td>{{ count("run." ~ key ~ "." ~ loop.index0 ~ ".images") }}</td>
{% set place = loop.index0 %}{% for run in runs %}
<td>{{ percent(run ~ "." ~ key ~ "." ~ place ~ ".accuracy") }}</td>
{% if numbers[run].evidence %}<td>{{ percent(run ~ "." ~ key ~ "." ~ place ~ ".inside") }}</td>{% endif %}{% endfor %}
{% if differences %}<td>{{ interval("difference.by_group." ~ place) }}</td>{% endif %}</tr>
{% endfor %}</tbody></table></div>
{% endmacro %}
{% macro figures(key) %}
<div class="pictures{% if runs|length > 1 %} many{% endif %}">{% for shown in pictures[key] %}
{% set image = numbers[key][loop.index0] %}{% set place = loop.index0 %}
<figure class="card"><div class="row"><img src="{{ shown.picture }}" loading="lazy"
 alt="{{ image.label }}: {{ image.file or 'image ' ~ image.index }}">{% for uri in shown.evidence %}
<img src="{{ uri }}" loading="lazy" alt="What speaks for and against, seen by {{ numbers[runs[loop.index0]].name }}">\
{% endfor %}</div>
<figcaption>{{ image.group or image.label }}{% for answer in image.answers %}<br>{% if runs|length > 1 %}
{{ numbers[runs[loop.index0]].name }}: {% endif %}<span class="is-{{ 'right' if answer.right else 'wrong' }}">\
{{ answer.label }} {{ percent(key ~ "." ~ place ~ ".answers." ~ loop.index0 ~ ".probability") }}</span>\
{% if answer.inside is not none %}, evidence for {{ image.label }} inside the target: \
{{ percent(key ~ "." ~ place ~ ".answers." ~ loop.index0 ~ ".inside") }}{% endif %}{% endfor %}
<br>{{ image.file or "image " ~ image.index }}</figcaption></figure>{% endfor %}</div>
{% endmacro %}
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ numbers.run.name }}: where it looks and whom it fails</title><style>
"""
    + STYLE
    + """</style></head><body><main>
<h1>Where does it look, and whom does it fail?</h1>
{% for run in runs %}<p class="verdict">{% if runs|length > 1 %}<b>{{ numbers[run].name }}</b>{% endif %}\
{{ verdict(numbers[run]) }}</p>{% endfor %}
<p class="facts">{{ count("images") }} {{ numbers.split_name }} images of {{ numbers.data }}; classes: \
{{ numbers.classes|join(", ")|truncate(200) }}.{% for run in runs %} {{ numbers[run].name }}: {{
numbers[run].checkpoint }}.\
{% endfor %}</p>

<h2>At a glance</h2>
<div class="scroll"><table><thead><tr><th></th>{{ heads() }}</tr></thead><tbody>
{{ row("right answers", "accuracy", percent, "accuracy") }}
{{ row("worst class: " ~ numbers.run.worst_class.name, "worst_class.accuracy", percent, "") if runs|length == 1 else
   row("worst class", "worst_class.accuracy", percent, "") }}
{% if numbers.run.worst_group %}{{ row("worst group: " ~ numbers.run.worst_group.name, "worst_group.accuracy",
percent, "")
   if runs|length == 1 else row("worst group", "worst_group.accuracy", percent, "") }}{% endif %}
{{ row("area under the ROC curve", "auroc", score, "") }}
{{ row("average precision", "average_precision", score, "") }}
{{ row("F1, mean over classes", "f1_macro", score, "") }}
{{ row("calibration error (ECE)", "ece", score, "") }}
{% if numbers.run.evidence %}{{ row("evidence inside the target (EPG)", "evidence.epg", percent, "inside") }}
{{ row("strongest evidence on the target", "evidence.pointing_game", percent, "") }}{% endif %}
{% if numbers.run.backgrounds %}{{ row("right before other backgrounds", "backgrounds.exchanged.accuracy", percent,
   "exchanged") }}{% endif %}
</tbody></table></div>
{% if runs|length > 1 %}<p class="quiet">Differences are those of {{ numbers.run.name }} to {{ numbers.against.name }}
on
the same images, in percentage points, in brackets 95 % intervals of a paired bootstrap over the images.</p>{% endif %}

<h2>Whom does it fail?</h2>
{% if numbers.run.by_group %}{{ parts("group", "by_group", runs|length > 1) }}{% endif %}
{{ parts("class", "by_class", false) }}
<div class="two">{% for run in runs %}<div class="card"><h3>How far its confidence can be trusted{% if runs|length > 1
%}:
{{ numbers[run].name }}{% endif %}</h3>{{ reliability(numbers[run].confidence) }}<p class="quiet">On the dashed line an
answer is right as often as it says. Calibration error (ECE): {{ score(run ~ ".ece") }}.</p></div>{% endfor %}
{% if runs|length == 1 %}<div class="scroll"><table><thead><tr><th scope="col">confidence</th><th
scope="col">images</th>
<th scope="col">said</th><th scope="col">right</th></tr></thead><tbody>{% for each in numbers.run.confidence %}
<tr><th scope="row">{{ (100 * each.from)|round|int }} to {{ (100 * each.to)|round|int }} %</th>
<td>{{ count("run.confidence." ~ loop.index0 ~ ".images") }}</td>
<td>{{ percent("run.confidence." ~ loop.index0 ~ ".confidence") }}</td>
<td>{{ percent("run.confidence." ~ loop.index0 ~ ".accuracy") }}</td></tr>{% endfor %}</tbody></table></div>{% endif
%}</div>

{% if numbers.run.evidence %}<h2>Where does it look?</h2>
<p>The share of the evidence for the true class that lies inside the target. The target covers
{{ percent("run.evidence.covered") }} of a picture: evidence that lies anywhere would have that share inside. The tables
above have the share by class and group ("inside").</p>
<div class="two">{% for run in runs %}<div class="card"><h3>{{ numbers[run].name }}</h3>
{{ histogram(numbers[run].evidence.histogram) }}
<p class="quiet"><span class="is-right">Right</span> answers have {{ percent(run ~ ".evidence.right") }} inside on
average,
<span class="is-wrong">wrong</span> ones {{ percent(run ~ ".evidence.wrong") }}; {{ count(run ~ ".evidence.images") }}
images
have a prior. Each colour adds up to 100 %.</p></div>{% endfor %}</div>{% endif %}

{% if numbers.run.backgrounds %}<h2>Does it need the background?</h2>
<div class="scroll"><table><thead><tr><th></th>{% for run in runs %}<th scope="col">right{% if runs|length > 1 %},
{{ numbers[run].name }}{% endif %}</th><th scope="col">area under ROC</th>{% endfor %}</tr></thead><tbody>
{% for kind, name in (("original", "the picture as it is"), ("alone", "the target alone"),
 ("exchanged", "before other backgrounds")) %}<tr><th scope="row">{{ name }}</th>{% for run in runs %}
<td>{{ percent(run ~ ".backgrounds." ~ kind ~ ".accuracy") }}</td>
<td>{{ score(run ~ ".backgrounds." ~ kind ~ ".auroc") }}</td>{% endfor %}</tr>{% endfor %}
{% for each in numbers.run.backgrounds.by_class %}{% set place = loop.index0 %}
<tr><th scope="row">{{ each.name }} before other backgrounds</th>
{% for run in runs %}<td>{{ percent(run ~ ".backgrounds.by_class." ~ place ~ ".exchanged") }}</td><td></td>{% endfor
%}</tr>
{% endfor %}</tbody></table></div>
{% for run in runs %}<p>{% if runs|length > 1 %}{{ numbers[run].name }}: {% endif %}
{{ percent(run ~ ".backgrounds.changed") }} of the answers change with the background.</p>{% endfor %}
{% for run in runs %}<p>Background gap{% if runs|length > 1 %} of {{ numbers[run].name }}{% endif %}, the accuracy
that is
lost with the own background: <b>{{ interval(run ~ ".backgrounds.gap") }}</b> percentage points.
Where the backgrounds of a split say nothing about the class there is none, however much it looks at them.</p>{%
endfor %}
<p class="quiet">{{ numbers.run.backgrounds.what_is_done }} In brackets the 95 % interval of a paired bootstrap over the
{{ count("run.backgrounds.images") }} images.</p>{% endif %}

{% if runs|length > 1 %}<h2>Where they disagree</h2>
<div class="scroll"><table><tbody>
<tr><th scope="row">both right</th><td>{{ count("difference.images.both") }}</td></tr>
<tr><th scope="row">only {{ numbers.run.name }} right</th><td>{{ count("difference.images.only_first") }}</td></tr>
<tr><th scope="row">only {{ numbers.against.name }} right</th><td>{{ count("difference.images.only_second") }}</td></tr>
<tr><th scope="row">neither right</th><td>{{ count("difference.images.neither") }}</td></tr></tbody></table></div>
{% if numbers.only_first %}<h3>Only {{ numbers.run.name }} is right</h3>{{ figures("only_first") }}{% endif %}
{% if numbers.only_second %}<h3>Only {{ numbers.against.name }} is right</h3>{{ figures("only_second") }}{% endif %}{%
endif %}

<h2>The worst mistakes</h2>
{% if numbers.mistakes %}<p>Wrong answers, the most confident first. Left the picture\
{% if numbers.run.evidence %} with the outline of the target <span class="key outline"></span>{% endif %}, right the
evidence: <span class="key" style="background:#cd1e23"></span> speaks for {{ numbers.warm }},
<span class="key" style="background:#195fbe"></span> {{ numbers.cold }}.</p>
{{ figures("mistakes") }}{% else %}<p>There are none.</p>{% endif %}
</main></body></html>
"""
)
"""What `lightning_priors.explain.page.page` fills."""
