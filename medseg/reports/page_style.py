"""The frame and the look of a page: HTML and CSS as text, and the policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib

from medseg.core.colors import LESION_COLORS

__all__ = ["INDEX", "PAGE", "STYLE", "VIEWER", "policy"]

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>$case_id - medseg</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$case_id</h1>
<p class="notice">For research use only. medseg is not a medical device.</p>
</header>
<main>
<dl class="facts">
$summary
</dl>
$viewer
<h2>Lesions</h2>
$lesions
$overview
$notes
<h2>How it was made</h2>
<dl class="provenance">
$provenance
</dl>
</main>
$data
<script>$script</script>
</body>
</html>
"""

INDEX = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>Cases - medseg</title>
<style>$style</style>
</head>
<body>
<header>
<h1>Cases</h1>
<p class="notice">For research use only. medseg is not a medical device.</p>
</header>
<main>
<dl class="facts">
$summary
</dl>
<h2>Results</h2>
<div class="scroll" role="region" aria-label="Cases" tabindex="0"><table>
<thead><tr><th scope="col">case</th><th scope="col">lesions</th><th scope="col">volume (ml)</th>
<th scope="col">modality</th><th scope="col">model</th><th scope="col">notes</th></tr></thead>
<tbody>
$rows
</tbody></table></div>
</main>
</body>
</html>
"""

VIEWER = """\
<noscript><p class="none">Without script the page shows the table and the key images below.</p></noscript>
<section id="viewer" aria-label="Viewer" hidden>
<div class="controls">
<label>Window <select id="window"></select></label>
<label>from <input id="low" type="number" step="any"></label>
<label>to <input id="high" type="number" step="any"> $unit</label>
<label>Lesions <select id="overlay">
<option value="outline">outlined</option><option value="filled">filled</option><option value="off">hidden</option>
</select></label>
<button type="button" id="previous">Previous lesion</button>
<button type="button" id="next">Next lesion</button>
<button type="button" id="diameter">Longest diameter</button>
</div>
<div class="views">
$views
</div>
<p id="where" role="status" aria-live="polite">Unpacking the scan.</p>
<details><summary>Keys</summary><p>In a picture: arrow keys move the crosshair, Page Up and Page Down go through the
slices, the mouse wheel too. Anywhere: n and p go to the next and previous lesion, d to the longest diameter of the
lesion, o outlines, fills or hides lesions. Click a row to go to its lesion, click a lesion to find its row.</p>
</details>
<p class="quiet">$note</p>
</section>
"""

_COLOR_RULES = "".join(f".color-{n} {{ background: rgb{color}; }}\n" for n, color in enumerate(LESION_COLORS, start=1))

STYLE = (
    _COLOR_RULES
    + """\
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f6f8; --line: #d5d9e0; --text: #1b1f27; --quiet: #5b6472;
  --notice: #7a4b00; --notice-ground: #fff4dc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171c; --raised: #1d2128; --line: #363c47; --text: #e6e9ef; --quiet: #9aa4b4;
    --notice: #ffd48a; --notice-ground: #33280f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 78rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0 0 .5rem; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .75rem; font-size: 1.15rem; }
.notice {
  margin: 0 0 1.5rem; padding: .5rem .75rem; border-left: 4px solid; border-radius: 4px;
  color: var(--notice); background: var(--notice-ground);
}
dl { margin: 0; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .75rem 1.5rem; }
.provenance { display: grid; gap: .5rem; font-size: .9rem; }
figure {
  margin: 1.5rem 0 0; padding: .75rem; width: fit-content; max-width: 100%;
  background: var(--raised); border: 1px solid var(--line); border-radius: 8px;
}
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
figcaption { margin-top: .5rem; color: var(--quiet); font-size: .9rem; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; }
.grid figure { margin: 0; break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; padding-top: .5rem; text-align: left; color: var(--quiet); }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th {
  vertical-align: bottom; white-space: normal; background: var(--raised); font-weight: 600; border-bottom-width: 2px;
}
tbody th { font-weight: 600; }
td.text { text-align: left; }
tbody tr:hover { background: var(--raised); }
.swatch {
  display: inline-block; width: .75em; height: .75em; margin-right: .45em; border-radius: 2px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.none { font-size: 1.15rem; }
.quiet { color: var(--quiet); font-size: .9rem; }
.flag { color: var(--notice); font-weight: 600; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: .75rem; }
.views figure { margin: 0; padding: .5rem; width: auto; }
.views canvas {
  display: block; width: 100%; aspect-ratio: 1; border-radius: 4px; touch-action: none; cursor: crosshair;
}
.views input { width: 100%; margin: .4rem 0 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: 1rem 0 .75rem; }
.controls input { width: 6em; }
button, select, input { font: inherit; color: inherit; }
button, select, .controls input {
  padding: .2rem .6rem; background: var(--raised); border: 1px solid var(--line); border-radius: 6px;
}
button { cursor: pointer; }
thead button, tbody th button { padding: 0; border: 0; background: none; font-weight: 600; text-align: inherit; }
thead button::after { content: " \\2195"; color: var(--quiet); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
:focus-visible { outline: 3px solid #2f7de1; outline-offset: 1px; }
tr[data-lesion] { cursor: pointer; }
tr.chosen, tr.chosen:hover { background: color-mix(in srgb, #2f7de1 18%, var(--ground)); }
#where { font-variant-numeric: tabular-nums; min-height: 1.5em; }
@media print {
  body { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  #viewer, .screen { display: none; }
  thead button::after { content: none !important; }
  tr.chosen { background: none; }
}
"""
)


def policy(style: str, script: str) -> str:
    """The content security policy: this style, the script if any, pictures in the page, nothing from anywhere."""
    scripts = f"script-src {_hash(script)}; " if script else ""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}; {scripts}base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
