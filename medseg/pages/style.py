"""The look that all pages share, as CSS: light and dark by the reader's setting, in print without frames."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f6f8; --line: #d5d9e0; --text: #1b1f27; --quiet: #5b6472;
  --notice: #7a4b00; --notice-ground: #fff4dc; --focus: #1f6fd0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171c; --raised: #1d2128; --line: #363c47; --text: #e6e9ef; --quiet: #9aa4b4;
    --notice: #ffd48a; --notice-ground: #33280f; --focus: #5ea1f2;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 78rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0 0 .5rem; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .75rem; font-size: 1.15rem; }
a { color: inherit; }
.notice {
  margin: 0 0 1.5rem; padding: .5rem .75rem; border-left: 4px solid; border-radius: 4px;
  color: var(--notice); background: var(--notice-ground);
}
.quiet { color: var(--quiet); font-size: .9rem; }
.flag { color: var(--notice); font-weight: 600; }
figure { padding: .75rem; background: var(--raised); border: 1px solid var(--line); border-radius: 8px; }
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
button, select, input { font: inherit; color: inherit; }
button, select { padding: .2rem .6rem; background: var(--raised); border: 1px solid var(--line); border-radius: 6px; }
button { cursor: pointer; }
thead button, tbody th button { padding: 0; border: 0; background: none; font-weight: 600; text-align: inherit; }
thead button::after { content: " \\2195"; color: var(--quiet); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
@media print {
  :root {
    color-scheme: light;
    --ground: #ffffff; --raised: #ffffff; --line: #b9bec7; --text: #000000; --quiet: #444b57;
    --notice: #5c3800; --notice-ground: #ffffff;
  }
  body { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  thead button::after { content: none !important; }
  tr, figure { break-inside: avoid; }
}
"""
