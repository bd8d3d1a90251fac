"""What is particular to the pages of cases: the frame of the viewer as HTML, and CSS beside that of all pages."""

from __future__ import annotations

from medseg.core.colors import LESION_COLORS

__all__ = ["STYLE", "VIEWER"]

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
dl { margin: 0; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .75rem 1.5rem; }
.provenance { display: grid; gap: .5rem; font-size: .9rem; }
figure { margin: 1.5rem 0 0; width: fit-content; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
figcaption { margin-top: .5rem; color: var(--quiet); font-size: .9rem; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; }
.grid figure { margin: 0; }
.swatch {
  display: inline-block; width: .75em; height: .75em; margin-right: .45em; border-radius: 2px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.none { font-size: 1.15rem; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: .75rem; }
.views figure { margin: 0; padding: .5rem; width: auto; }
.views canvas {
  display: block; width: 100%; aspect-ratio: 1; border-radius: 4px; touch-action: none; cursor: crosshair;
}
.views input { width: 100%; margin: .4rem 0 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: 1rem 0 .75rem; }
.controls input {
  width: 6em; padding: .2rem .6rem; background: var(--raised); border: 1px solid var(--line); border-radius: 6px;
}
tr[data-lesion] { cursor: pointer; }
tr.chosen, tr.chosen:hover { background: color-mix(in srgb, var(--focus) 18%, var(--ground)); }
#where { font-variant-numeric: tabular-nums; min-height: 1.5em; }
@media print {
  #viewer, .screen { display: none; }
  tr.chosen { background: none; }
}
"""
)
