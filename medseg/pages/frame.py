"""The frame of every page: one HTML file that needs nothing else, and the policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from string import Template

from medseg.io.atomic import atomic_path
from medseg.pages.style import STYLE

__all__ = ["SORT_SCRIPT", "write_page"]

SORT_SCRIPT = files("medseg.pages").joinpath("assets/sort_table.js").read_text(encoding="utf-8")
"""Makes the headings of every `table.sortable` sort its rows by the `data-value` of their cells."""

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>$heading - medseg</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$heading</h1>
<p class="notice">For research use only. medseg is not a medical device.</p>
</header>
<main>
$main
</main>
$data
$script
</body>
</html>
""")


def write_page(
    path: str | PathLike[str],
    heading: str,
    main: str,
    *,
    style: str = "",
    data: str = "",
    script: str = "",
    later_scripts: Sequence[str] = (),
) -> None:
    """Write a page, whole or not at all.

    Parameters
    ----------
    path
        The file; replaced if it is there.
    heading
        Text, not HTML.
    main, data
        HTML: what is seen; and blocks behind it that no browser runs.
    style
        CSS, in addition to that of all pages.
    script
        What runs in the page; nothing if empty.
    later_scripts
        What the script may put into the page and run, by their exact text.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    look = STYLE + style
    page = _PAGE.substitute(
        heading=escape(heading),
        policy=escape(_policy(look, [script, *later_scripts])),
        style=look,
        main=main,
        data=data,
        script=f"<script>{script}</script>" if script else "",
    )
    with atomic_path(Path(path)) as temporary:
        # A file name that is not UTF-8 reaches a heading as lone surrogates: written as character references.
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def _policy(style: str, scripts: Sequence[str]) -> str:
    """The content security policy: this style, these scripts, pictures in the page, nothing from anywhere."""
    allowed = " ".join(_hash(script) for script in scripts if script)
    run = f"script-src {allowed}; " if allowed else ""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}; {run}base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
