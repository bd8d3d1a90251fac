"""The 3-D view of a page: NiiVue, a WebGL viewer made by others, packed into the page and run only when asked for.

The library lies in this package as it was published, with its licenses (`assets/niivue-LICENSES.txt`). The page carries
both, and its content policy allows that script by its hash.

References
----------
NiiVue: https://github.com/niivue/niivue
"""

from __future__ import annotations

import base64
import gzip
from html import escape
from importlib.resources import files
from string import Template

__all__ = ["NIIVUE_STYLE", "NIIVUE_VERSION", "NIIVUE_VIEW_SCRIPT", "niivue_data", "niivue_script", "niivue_section"]

NIIVUE_VERSION = "0.69.0"

_ASSETS = files("medseg.reports").joinpath("assets")

NIIVUE_VIEW_SCRIPT = _ASSETS.joinpath("niivue_view.js").read_text(encoding="utf-8")
"""Our script between the viewer and NiiVue; it runs after that of the viewer."""

NIIVUE_STYLE = """\
#view3d canvas { touch-action: none; }
#view3d div:has(> canvas:not([hidden])) { height: 32rem; border-radius: 8px; }
#view3d canvas[hidden] { display: none; }
#view3d pre { white-space: pre-wrap; font-size: .75rem; }
@media print { #view3d { display: none; } }
"""

_SECTION = Template("""\
<section id="view3d" aria-label="3-D view" hidden>
<h2>In 3-D</h2>
<p class="controls"><button type="button" id="view3d-start">Show in 3-D</button></p>
<div class="controls" id="view3d-controls" hidden>
<label>Show <select id="view3d-layout"><option value="render">the body</option>
<option value="planes">planes and the body</option></select></label>
<label>Body <input id="view3d-body" type="range" min="0" max="1" step="0.05" value="0.6"></label>
</div>
<div><canvas id="view3d-canvas" tabindex="0" role="application" hidden aria-describedby="view3d-told"
aria-label="3-D picture of the scan with its lesions. Arrow keys turn it."></canvas></div>
<p class="quiet" id="view3d-told" role="status">NiiVue $version draws it; it needs WebGL 2, and to be quick a graphics
processor.</p>
<details><summary>Licenses of NiiVue and of what it contains</summary><pre>$licenses</pre></details>
</section>
""")


def niivue_section() -> str:
    """HTML of the 3-D view, with the notices that NiiVue's license asks for."""
    licenses = _ASSETS.joinpath("niivue-LICENSES.txt").read_text(encoding="utf-8")
    return _SECTION.substitute(version=NIIVUE_VERSION, licenses=escape(licenses))


def niivue_data() -> str:
    """The packed library as a block that no browser runs."""
    text = base64.b64encode(_packed()).decode("ascii")
    return f'<script type="application/gzip" id="niivue-script">{text}</script>'


def niivue_script() -> str:
    """The library's text, as the page's policy must know it."""
    return gzip.decompress(_packed()).decode("utf-8")


def _packed() -> bytes:
    return _ASSETS.joinpath(f"niivue-{NIIVUE_VERSION}.umd.js.gz").read_bytes()
