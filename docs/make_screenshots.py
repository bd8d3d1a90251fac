"""Pictures of the page of a case for the documentation: phantoms, in headless Chromium, with the network off.

python docs/make_screenshots.py [FOLDER]
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import medseg
from medseg.reports.case_page import write_case_page
from tests.reports.cases import make_result

IMAGES = Path(__file__).resolve().parent / "images"


def main(folder: Path) -> None:
    """Write report_pet.webp and report_ct.webp."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for kind, modality, row in (("pet", "PT", 1), ("ct", "CT", 2)):
            phantom = medseg.make_phantom(kind, seed=3, touching=True)  # type: ignore[arg-type]
            result = make_result(
                phantom.volume.array[0],
                phantom.lesions.array,
                phantom.volume.geometry,
                case_id=f"phantom_{kind}",
                modality=modality,
                units="suv" if kind == "pet" else "stored",
            )
            path = Path(temporary, f"{kind}.html")
            write_case_page(result, path)
            page = browser.new_context(offline=True, viewport={"width": 1200, "height": 1350}).new_page()
            page.goto(f"file://{path}")
            page.wait_for_selector("#viewer[data-state=ready]")
            page.click(f"tr[data-lesion='{row}'] td.number")
            page.click("#diameter")
            page.evaluate("window.scrollTo(0, 0)")
            page.wait_for_timeout(300)
            picture = Image.open(io.BytesIO(page.screenshot()))
            picture.save(folder / f"report_{kind}.webp", quality=82, method=6)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
