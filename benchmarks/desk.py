"""How heavy are the pages, and how soon does a reader see the first image? In Chromium, on loopback.

    python -m benchmarks.desk [--slices 100] [--repeats 5]

The study is the bundled one, resampled to 512 x 448 and many slices, with the findings of a classical profile. Each
page is opened in a new browser context, so nothing is cached. *First image*: a slice, drawn by the server, is painted;
*viewer*: the first volume has taken its place; *all*: SWI, phase and projection have. Chromium draws by software
(SwiftShader), as on a computer without a graphics card, and shares the cores with the node. *Faults*: what axe finds
of WCAG 2.0 to 2.2, A and AA. Times are medians (and the longest).
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Response, sync_playwright
from scipy.ndimage import zoom

from node.roles import SessionKind, UserRole
from node.web.app import create_app
from node.web.auth import cookie_name, new_token, token_hash
from pipeline.detect import Detection, analyse
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.pictures import CROPS, SLICES, VOLUMES
from pipeline.pictures.crops import make_crops
from pipeline.pictures.slices import make_slices
from pipeline.pictures.volumes import make_volumes
from tests.browser.test_accessibility import violations
from tests.browser.test_desk import SOFTWARE_GL
from tests.browser.test_worklist_page import ARGUMENTS, CHROMIUM
from tests.classical import quick_profile
from tests.node.people import add, settings_for
from tests.node.seeded import Seeder
from tests.pipeline import phantom
from tests.web_server import served

ROWS, COLUMNS = 512, 448
LOAD_MS = 120_000
_NOTE_TIMES = """
const after_paint = (done) => requestAnimationFrame(() => requestAnimationFrame(done));
document.addEventListener("load", (event) => {
  if (event.target.closest?.(".stage")) after_paint(() => { window.image_ms ??= performance.now(); });
}, true);
addEventListener("viewer:ready", () => { window.viewer_ms = performance.now(); }, true);
new MutationObserver(() => {
  if (document.querySelector("#volumes[data-loaded]")) window.all_ms ??= performance.now();
}).observe(document, {subtree: true, attributes: true, childList: true});
"""


@dataclass(frozen=True)
class Opened:
    """One page, opened once: kilobytes, requests, and ms until its text, its image and its volumes are there."""

    kilobytes: float
    requests: int
    text_ms: float
    image_ms: float = float("nan")
    viewer_ms: float = float("nan")
    all_ms: float = float("nan")
    faults: int = 0


def resampled(acquisition: Acquisition, shape: tuple[int, int, int]) -> Acquisition:
    """The same head on a finer grid."""
    old = acquisition.swi.geometry
    factors = np.array(shape) / old.shape
    affine = old.affine.copy()
    affine[:3, :3] = old.affine[:3, :3] / factors[::-1]
    grid = Geometry(shape, affine, old.frame_of_reference_uid)
    frames = tuple(acquisition.swi.frames[min(int(k / factors[0]), old.shape[0] - 1)] for k in range(shape[0]))

    def volume(one: Volume | None) -> Volume | None:
        return one and replace(one, array=zoom(one.array, factors, order=1), geometry=grid, frames=frames)

    swi = volume(acquisition.swi)
    assert swi is not None
    return replace(acquisition, swi=swi, phase=volume(acquisition.phase), magnitude=volume(acquisition.magnitude))


def seeded(folder: Path, detection: Detection) -> tuple[Seeder, str]:
    """A ledger with this study and forty others; the address of its page."""
    seeder = Seeder(folder)
    for n in range(40):
        key = f"other {n}"
        seeder.receive(key, f"Doe^{n}", f"P-{n}", images=1)
        seeder.settle(key)
        seeder.open(key)
        seeder.analyse(key, n % 5)
    uid = seeder.receive("study", "Rivera^Maria", "P-7001")
    seeder.settle("study")
    seeder.open("study")
    seeder.analyse("study", 0, findings=replace(detection.findings, study_instance_uid=uid))
    numbers = tuple(range(1, detection.acquisition.swi.array.shape[0] + 1))
    outbox = folder / "outbox" / str(seeder.jobs["study"])
    for name, make in ((CROPS, make_crops), (SLICES, make_slices), (VOLUMES, make_volumes)):
        (outbox / name).write_bytes(make(detection, numbers))
    add(seeder.ledger, "root", UserRole.ADMINISTRATOR)
    return seeder, f"/studies/{uid}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a graphics card."""
    arguments = [one for one in ARGUMENTS if one != "--disable-gpu"] + SOFTWARE_GL
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def open_page(browser: Browser, address: str, path: str, token: str, *, images: bool) -> Opened:
    """Open a page with nothing in the cache."""
    with browser.new_context(viewport={"width": 1920, "height": 1080}) as context:
        context.add_cookies([{"name": cookie_name(False), "value": token, "url": address}])
        context.add_init_script(_NOTE_TIMES)
        page, answers = context.new_page(), list[Response]()
        page.on("response", lambda answer: answers.append(answer))
        page.goto(address + path)
        if images:
            page.wait_for_selector("#volumes[data-loaded]", timeout=LOAD_MS)
        page.wait_for_load_state("networkidle")
        times = page.evaluate(
            "[performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd,"
            " window.image_ms ?? NaN, window.viewer_ms ?? NaN, window.all_ms ?? NaN]"
        )
        sizes = sum(answer.request.sizes()["responseBodySize"] for answer in answers)
        return Opened(sizes / 1000, len(answers), *times, len(violations(page)))


def row(name: str, runs: list[Opened]) -> str:
    """One line of the table."""
    columns = ("text_ms", "image_ms", "viewer_ms", "all_ms")
    times = [[getattr(run, column) for run in runs] for column in columns]
    texts = ["" if math.isnan(ms[0]) else f"{statistics.median(ms):.0f} ({max(ms):.0f})" for ms in times]
    return f"| {name} | {runs[0].kilobytes:.0f} | {runs[0].requests} | {' | '.join(texts)} | {runs[0].faults} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    detection = analyse(resampled(phantom.demo(), (given.slices, ROWS, COLUMNS)), quick_profile(), key="desk")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        seeder, study = seeded(Path(folder) / "node", detection)
        token = new_token()
        seeder.ledger.open_session(token_hash(token), "root", SessionKind.BROWSER, 3600)
        pages = {"worklist": "/", f"study, {given.slices} slices of {ROWS} x {COLUMNS}": study, "audit": "/audit"}
        print("| page | kB | requests | text ms | first image ms | viewer ms | all ms | faults |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        with served(create_app(settings_for(seeder.data_dir), seeder.ledger)) as address:
            for name, path in pages.items():
                runs = [open_page(browser, address, path, token, images=path == study) for _ in range(given.repeats)]
                print(row(name, runs))
        seeder.ledger.close()


if __name__ == "__main__":
    main()
