"""The frame and the look of a page: HTML and CSS as text."""

from __future__ import annotations

__all__ = ["PAGE", "STYLE"]

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="robots" content="noindex">
<title>$case_id - medseg</title>
<style>
$style</style>
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
$overview
<h2>Lesions</h2>
$lesions
$notes
<h2>How it was made</h2>
<dl class="provenance">
$provenance
</dl>
</main>
</body>
</html>
"""

STYLE = """\
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
@media print {
  body { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
}
"""
