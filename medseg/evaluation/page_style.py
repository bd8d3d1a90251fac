"""The frame and the look of the pages of evaluations: HTML and CSS as text."""

from __future__ import annotations

__all__ = ["PAGE", "STYLE"]

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="robots" content="noindex">
<title>$title - medseg</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="notice">For research use only. medseg is not a medical device.</p>
</header>
<main>
$body
</main>
</body>
</html>
"""

STYLE = """\
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f6f8; --line: #d5d9e0; --text: #1b1f27; --quiet: #5b6472;
  --notice: #7a4b00; --notice-ground: #fff4dc; --first: #1f6fb4; --second: #b4541f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171c; --raised: #1d2128; --line: #363c47; --text: #e6e9ef; --quiet: #9aa4b4;
    --notice: #ffd48a; --notice-ground: #33280f; --first: #6fb3ec; --second: #f0a06a;
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
.verdict { font-size: 1.1rem; max-width: 60rem; }
.quiet { color: var(--quiet); font-size: .9rem; max-width: 60rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
figure {
  margin: 0; padding: .75rem; background: var(--raised); border: 1px solid var(--line); border-radius: 8px;
  break-inside: avoid;
}
figcaption { margin-bottom: .5rem; font-weight: 600; }
figure p { margin: .5rem 0 0; color: var(--quiet); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
.axis { stroke: var(--quiet); fill: none; stroke-width: 1; }
.level { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 3; }
.word { fill: var(--quiet); }
.name { fill: var(--text); font-size: 12px; }
.s0 { stroke: var(--first); fill: var(--first); }
.s1 { stroke: var(--second); fill: var(--second); }
circle { fill-opacity: .65; stroke: none; }
.whisker { stroke-width: 1.5; }
.curve { fill: none; stroke-width: 2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { vertical-align: bottom; white-space: normal; background: var(--raised); border-bottom-width: 2px; }
th:first-child, td.text { text-align: left; white-space: normal; }
tbody tr:hover { background: var(--raised); }
@media print { body { max-width: none; padding: 0; } .scroll { overflow: visible; } }
"""
