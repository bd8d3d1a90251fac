"""What is particular to the pages of evaluations, as CSS beside that of all pages."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
:root { --first: #1f6fb4; --second: #b4541f; }
@media (prefers-color-scheme: dark) { :root { --first: #6fb3ec; --second: #f0a06a; } }
.verdict { font-size: 1.1rem; max-width: 60rem; }
.quiet { max-width: 60rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
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
th:first-child, td.text { text-align: left; white-space: normal; }
@media print { :root { --first: #1f6fb4; --second: #b4541f; } }
"""
