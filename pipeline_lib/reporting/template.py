"""The report's page as a Jinja template. A string of code, so that an edit to it writes the report anew."""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<nav><div>
  <a href="#results">Results</a>
  {% if comparisons %}<a href="#differences">Differences</a>{% endif %}
  {% if curves %}<a href="#training">Training</a>{% endif %}
  <a href="#classes">Classes</a>
  <a href="#confusion">Confusion</a>
  {% if galleries %}<a href="#motion">Motion</a>{% endif %}
  <a href="#data">Data</a>
  <a href="#origin">Origin</a>
</div></nav>
<main>
<h1>{{ title }}</h1>
{% for note in notes %}<p class="soft">{{ note }}</p>{% endfor %}
<div class="cards">
{% for card in cards %}
  <div class="card"><b class="{{ card.tone }}">{{ card.value }}</b><span>{{ card.label }}</span></div>
{% endfor %}
</div>

<h2 id="results">Results</h2>
<p class="soft small">Per cent. Video@1 and Video@5 average the softmax over a video's clips; below Video@1 stands the
95 % interval of a share of that many videos (Wilson), or the standard deviation over several runs. The calibration
error is the gap between confidence and accuracy (15 bins). ★ marks the highest Video@1.</p>
{% for table in tables %}
<h3>{{ table.dataset }} <span class="tag">{{ table.protocol }}</span>
  <span class="tag">{{ num_classes[table.dataset] }} classes</span>
  {% for manifest in table.manifests %}<span class="tag" title="manifest {{ manifest }}">manifest {{ manifest[:12] }}
  </span>{% endfor %}</h3>
<div class="scroll"><table class="wide">
<tr><th class="left">Experiment</th><th class="left">Input</th>
{% for _, label in figures %}<th>{{ label }}</th>{% endfor %}<th>Calib.<br>error</th><th>Videos</th>
{% if table.has_paper %}<th>Paper</th><th>Ours&nbsp;−<br>paper</th>{% endif %}</tr>
{% for row in table.rows %}
<tr{% if row.best %} class="best"{% endif %}>
<td class="left"><b>{{ row.name }}</b>{% for mark in row.manifest_marks %}<sup class="mark">{{ mark }}</sup>{% endfor
%}<br><span class="soft">{{ row.description }}</span></td>
<td class="left number">{{ row.modality }}<br><span class="soft">{{ row.network }}</span></td>
{% for name, _ in figures %}
<td class="number">{% if name == "video_top1" %}<b>{{ "%.1f"|format(row.figures[name]) }}</b>{% else
%}{{ "%.1f"|format(row.figures[name]) }}{% endif %}
{% if row.spread[name] is not none %}<br><span class="soft">± {{ "%.1f"|format(row.spread[name]) }}</span>
{% elif name == "video_top1" %}<br><span class="soft">{{ "%.1f"|format(row.interval[0]) }}–{{
"%.1f"|format(row.interval[1]) }}</span>{% endif %}</td>
{% endfor %}
<td>{{ "%.1f"|format(row.calibration) }}</td>
<td class="number">{{ row.num_videos }}{% if row.num_listed > row.num_videos %}<br><span class="soft">of {{
row.num_listed }}</span>{% endif %}{% if row.num_runs > 1 %}<br><span class="soft">{{ row.num_runs }} runs</span>
{% endif %}</td>
{% if table.has_paper %}
{% if row.compared %}
<td class="number">{% if row.compared != "video_top1" %}{{ labels[row.compared] }} {% endif %}{{
"%.1f"|format(row.paper[row.compared]) }}{% for mark in row.marks %}<sup class="mark">{{ mark }}</sup>{% endfor %}
{% for line in row.paper_lines %}<br><span class="soft">{{ line }}</span>{% endfor %}
<br><span class="soft">{{ row.paper_source }}</span></td>
<td class="number">{{ signed(row.figures[row.compared] - row.paper[row.compared]) }}</td>
{% else %}<td>–</td><td>–</td>{% endif %}
{% endif %}
</tr>
{% endfor %}
</table></div>
{% for mark, text in table.notes %}<p class="small"><sup class="mark">{{ mark }}</sup> {{ text }}</p>{% endfor %}
{% endfor %}

{% if retrievals %}
<h3 id="neighbours">Nearest neighbours</h3>
<p class="soft small">Per cent. Each validation video asks the training videos by the cosine of their features, before
any classifier: R@k is the share that finds one of its own class among the k nearest; k-NN is the class that the
{{ num_neighbours }} nearest vote for.</p>
<div class="scroll"><table>
<tr><th class="left">Experiment</th><th class="left">Data</th><th>R@1</th><th>R@5</th><th>R@10</th><th>k-NN</th>
<th>Queries</th><th>Gallery</th></tr>
{% for entry in retrievals %}
<tr><td class="left"><b>{{ entry.experiment.name }}</b><br>
<span class="soft">{{ entry.experiment.description }}</span></td>
<td class="left">{{ entry.experiment.dataset }}<br><span class="soft">{{ entry.experiment.retrieval }}</span></td>
{% for figure in ["recall_at_1", "recall_at_5", "recall_at_10", "knn_top1"] %}
<td class="number">{{ "%.1f"|format(100 * entry.mean(figure)) }}</td>{% endfor %}
<td>{{ entry.records[0].num_queries }}</td><td>{{ entry.records[0].num_gallery }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% if comparisons %}
<h2 id="differences">Differences</h2>
<p class="soft small">Video@1 of the first minus that of the second on the same videos. The interval (95 %) is a paired
bootstrap over the videos: it says how far the difference depends on which videos were evaluated, not how it would
vary over training runs.</p>
{% if difference_figure %}<figure>{{ difference_figure }}</figure>{% endif %}
<div class="scroll"><table>
<tr><th class="left">First</th><th class="left">Second</th><th class="left">Protocol</th><th>Difference</th>
<th>95 % interval</th><th>Videos</th><th>Runs</th><th class="left">Reading</th></tr>
{% for entry in comparisons %}
<tr><td class="left">{{ entry.first.name }}</td><td class="left">{{ entry.second.name }}</td>
<td class="left">{{ entry.first.protocol }}</td>
{% if entry.difference %}
<td class="number"><b>{{ signed(100 * entry.difference.mean) }}</b></td>
<td class="number">{{ signed(100 * entry.difference.low) }} … {{ signed(100 * entry.difference.high) }}</td>
<td>{{ entry.difference.num_videos }}</td><td>{{ entry.difference.num_runs }}</td>
<td class="left {{ {"better": "good", "worse": "bad"}.get(entry.verdict, "soft") }}">{{ entry.verdict }}</td>
{% else %}<td class="left soft" colspan="5">{{ entry.problem }}</td>{% endif %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if distances %}
<h3>Student and teacher</h3>
<p class="soft small">Distance of the logits on the same clips; the baseline, which never saw the teacher, stands
beside the student.</p>
<div class="scroll"><table>
<tr><th class="left">Network</th><th class="left">Teacher</th><th>Mean squared error</th><th>KL(teacher ‖ network)</th>
<th>Same top-1, %</th><th>Clips</th></tr>
{% for row in distances %}
<tr><td class="left">{{ row.student }}</td><td class="left">{{ row.teacher }}</td>
{% if row.distance %}<td>{{ "%.3f"|format(row.distance.mse) }}</td><td>{{ "%.3f"|format(row.distance.kl) }}</td>
<td>{{ "%.1f"|format(100 * row.distance.agreement) }}</td><td>{{ row.distance.num_clips }}</td>
{% else %}<td class="left soft" colspan="4">{{ row.problem }}</td>{% endif %}</tr>
{% endfor %}
</table></div>
{% endif %}

{% if curves %}
<h2 id="training">Training</h2>
<figure>{{ curves }}<figcaption>The loss and its parts as logged, and their moving mean.</figcaption></figure>
{% if accuracy %}<figure>{{ accuracy }}</figure>{% endif %}
{% if neighbours %}<figure>{{ neighbours }}<figcaption>Pre-training without labels, watched from outside: the share of
training clips whose class the most similar clips of other videos in the memory bank vote for.</figcaption></figure>
{% endif %}
{% endif %}

<h2 id="classes">Classes</h2>
{% for table in class_tables %}
<h3>{{ table.dataset }} <span class="tag">{{ table.protocol }}</span></h3>
<div class="scroll"><table class="heat">
<tr><th></th><th>videos</th>{% for name in table.names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr><th class="row">{{ row.name }}</th><th>{{ row.num_videos }}</th>{% for share in row.shares %}
{% if share is none %}<td style="--share:0">–</td>{% else
%}<td style="--share:{{ "%.3f"|format(share) }}"{% if share > 0.8 %} class="strong"{% endif %}>{{
"%.0f"|format(100 * share) }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</table></div>
{% if table.omitted %}<p class="soft small">{{ table.omitted }} classes more, whose accuracies differ less between the
experiments.</p>{% endif %}
{% endfor %}
{% for figure in class_figures %}
<figure>{{ figure.svg }}<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}

<h2 id="confusion">Confusion</h2>
<p class="soft small">Rows are labels, columns are predictions; counts of videos.</p>
<div class="pair">
{% for matrix in confusions %}
<div><h3>{{ matrix.name }}</h3>
{% if matrix.rows %}
<div class="scroll"><table class="heat"><tr><th></th>{% for name in matrix.classes %}<th class="column">{{ name }}</th>
{% endfor %}</tr>
{% for row in matrix.rows %}<tr><th class="row">{{ row.name }}</th>{% for cell in row.cells %}
<td style="--share:{{ "%.3f"|format(cell.share) }}"{% if cell.share > 0.8 %} class="strong"{% endif %}>{{
cell.count or "" }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
{% else %}
<table><tr><th class="left">Label</th><th class="left">taken for</th><th>videos</th><th>of</th></tr>
{% for pair in matrix.pairs %}<tr><td class="left">{{ pair.label }}</td><td class="left">{{ pair.prediction }}</td>
<td>{{ pair.count }}</td><td>{{ pair.total }}</td></tr>{% endfor %}</table>
{% endif %}</div>
{% endfor %}
</div>

{% if galleries %}
<h2 id="motion">Motion</h2>
<div class="wheel"><img src="{{ wheel.uri }}" width="{{ wheel.width }}" height="{{ wheel.height }}"
alt="colour wheel: the colour at each place is that of the motion from the centre to it">
<p class="soft small">Each frame with the motion that leaves it. The colour is the direction as on the wheel, its
strength the length: white is no motion, full colour the length given beside the video's id.</p></div>
{% for gallery in galleries %}
<h3>{{ gallery.dataset }} <span class="tag">{{ gallery.motion }}</span></h3>
<div class="strips">
{% for strip in gallery.strips %}
<div class="strip"><p class="small"><b>{{ strip.labels }}</b>
<span class="soft">{{ strip.id }}, full colour at {{ "%.1f"|format(strip.longest) }} {{ gallery.unit }}</span></p>
<div class="moments">{% for index, frame, motion in strip.moments %}
<div><img src="{{ frame.uri }}" width="{{ frame.width }}" height="{{ frame.height }}" alt="frame {{ index }}">
<img src="{{ motion.uri }}" width="{{ motion.width }}" height="{{ motion.height }}" alt="motion of frame {{ index }}">
<span class="soft small">frame {{ index }}</span></div>{% endfor %}</div></div>
{% endfor %}
</div>
{% endfor %}
{% endif %}

<h2 id="data">Data</h2>
{% for dataset in datasets %}
<h3>{{ dataset.name }} <span class="tag">{{ dataset.classes|length }} classes</span>
<span class="tag" title="manifest {{ dataset.digest }}">manifest {{ dataset.digest[:12] }}</span></h3>
<div class="scroll"><table>
<tr><th class="left">List</th><th>accepted</th><th>rejected</th><th>missing</th></tr>
{% for name, counts in dataset.counts.items() %}<tr><td class="left">{{ name }}</td><td>{{ counts.accepted }}</td>
<td>{{ counts.rejected }}</td><td>{{ counts.missing }}</td></tr>{% endfor %}
</table></div>
{% if dataset.reasons %}
<div class="scroll"><table>
<tr><th class="left">Not used</th><th class="left">Reason</th><th>videos</th></tr>
{% for status, reason, count in dataset.reasons %}<tr><td class="left">{{ status }}</td><td class="left">{{ reason }}
</td><td>{{ count }}</td></tr>{% endfor %}
</table></div>
<details><summary>{{ dataset.rejects|length }} of the {{ dataset.num_rejects }} videos that are not used</summary>
<div class="scroll"><table>
<tr><th class="left">Id</th><th class="left">List</th><th class="left">Status</th><th class="left">Reason</th></tr>
{% for id, list, status, reason in dataset.rejects %}<tr><td class="left"><code>{{ id }}</code></td>
<td class="left">{{ list }}</td><td class="left">{{ status }}</td><td class="left">{{ reason }}</td></tr>{% endfor %}
</table></div></details>
{% else %}<p class="soft small">Every listed video is used.</p>{% endif %}
{% endfor %}

<h2 id="origin">Origin</h2>
<p class="soft small">What every figure was made with and from. <code>python -m pipeline_lib provenance FILE</code>
prints the chain from any of these files back to the annotations.</p>
<div class="scroll"><table>
<tr><th class="left">Made with</th><th class="left">Version</th><th class="left">Used by</th></tr>
{% for name, version, stages in versions %}<tr><td class="left">{{ name }}</td><td class="left"><code>{{ version }}
</code></td><td class="left soft">{{ stages }}</td></tr>{% endfor %}
</table></div>
<div class="scroll"><table>
<tr><th class="left">Artefact</th><th class="left">Origin (digest)</th><th class="left">Code</th>
<th class="left">Inputs</th></tr>
{% for row in origins %}<tr><td class="left">{{ row.name }}</td><td class="left digest">{{ row.digest[:16] }}</td>
<td class="left digest">{{ row.code[:16] }}</td><td class="left small">{% for name, value in row.inputs %}{{ name }}
<span class="digest">{{ value[:16] }}</span>{% if not loop.last %}, {% endif %}{% endfor %}</td></tr>{% endfor %}
</table></div>
{% for name, text in specifications %}
<details><summary>Specification of {{ name }}</summary><pre>{{ text }}</pre></details>
{% endfor %}
<footer>pipeline_lib {{ library }}. This page needs no other file and no network.</footer>
</main>
</body>
</html>
"""
