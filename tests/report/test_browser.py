"""The report in a headless Chromium: opened from its file, without network."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

pytest.importorskip("bokeh", reason="the report needs bokeh: pip install cgcnn-jax[report]")
pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")

from playwright import sync_api

from cgcnn_jax.report import gallery, page
from tests.report.finished_runs import classes, regression, write_run
from tests.report.test_page import HOSTILE

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Label of the lower axis, width and height of every plot's frame.
FRAMES = """() => [...Bokeh.index].filter(view => view.frame).map(view =>
  [view.model.below.map(part => part.axis_label?.text ?? "").join(""), view.frame.bbox.width, view.frame.bbox.height])"""
# Where the first parity plot's worst point is on the screen.
WORST = """() => {
  for (const view of [...Bokeh.index])
    for (const {data_source} of view.model.renderers ?? []) {
      const data = data_source?.data
      if (!data?.neighbours) continue
      const place = data.id.indexOf("worst" + String.fromCharCode(60) + "/script>")
      view.el.scrollIntoView({block: "center"})
      const box = view.canvas_view.el.getBoundingClientRect()
      return [box.left + view.frame.x_scale.compute(data.target[place]),
              box.top + view.frame.y_scale.compute(data.prediction[place])]
    }
}"""
# What tooltips say, and whether anything was made of it that is no text.
TOOLTIPS = """() => {
  const texts = []
  const walk = root => {
    for (const element of root.querySelectorAll("*")) {
      if (element.matches("img[onerror], script") && root !== document) texts.push("INJECTED")
      if (element.shadowRoot) {
        if (element.matches(".bk-Tooltip")) texts.push(element.shadowRoot.textContent)
        walk(element.shadowRoot)
      }
    }
  }
  walk(document)
  return texts.join(" ")
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the machine, or that of playwright; skips where neither is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    with sync_api.sync_playwright() as driver:
        try:
            # --no-sandbox: the tests may run as root, and the page is our own.
            started = driver.chromium.launch(
                executable_path=found,
                args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
            )
        except sync_api.Error:
            pytest.skip("no Chromium; install one: apt-get install chromium, or playwright install chromium")
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of plot: a run of numbers with hostile names, another of them, and one of classes."""
    folder = tmp_path_factory.mktemp("report")
    targets, values = regression(60)
    values[7] = targets[7] + 3
    ids = [f"id-{k}" for k in range(60)]
    ids[: len(HOSTILE)], ids[7] = HOSTILE, "worst</script>"
    columns = {
        "formula": ["NaCl", '"><img src=x onerror=alert(4)>'] * 30,
        "n_atom": [k % 9 + 1 for k in range(60)],
        "nearest": ids,
        "distance": np.linspace(0, 2, 60).round(3),
    }
    runs = [
        write_run(folder / "one", targets, values, ids=ids, columns=columns),
        write_run(folder / "two", *regression(60, seed=1), changes={"train.seed": 1}),
        write_run(folder / "metal", *classes(), names=("is_metal",), units=("",), task="classification"),
    ]
    return page.write(runs, folder / "report.html")


@contextmanager
def opened(browser: Any, report: Path, **settings: Any) -> Iterator[Any]:
    """The page; nothing may be asked of the network, thrown, logged as an error or alerted, in all that is done to it."""
    problems: list[str] = []
    context = browser.new_context(offline=True, **settings)
    tab = context.new_page()
    tab.on("pageerror", lambda error: problems.append(f"error {error}"))
    tab.on("dialog", lambda dialog: (problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))
    try:
        tab.goto(report.as_uri())
        tab.wait_for_function(
            "window.Bokeh && [...Bokeh.index].filter(view => view.frame).length >= 12", timeout=60_000
        )
        tab.wait_for_function("Bokeh.documents.every(one => one.is_idle)", timeout=60_000)
        tab.wait_for_timeout(300)
        yield tab
    finally:
        context.close()
        assert problems == []


# A page takes seconds to draw, so that tests share it.
@pytest.fixture(scope="module")
def desktop(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report, **DESKTOP, color_scheme="light") as tab:
        yield tab


@pytest.fixture(scope="module")
def phone(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report, **PHONE) as tab:
        yield tab


def test_a_pointer_shows_id_and_formula_as_text(desktop: Any) -> None:
    assert desktop.evaluate(TOOLTIPS) == ""
    x, y = desktop.evaluate(WORST)
    desktop.mouse.move(x - 2, y)
    desktop.mouse.move(x, y)
    desktop.wait_for_timeout(300)
    shown = desktop.evaluate(TOOLTIPS)
    assert "worst</script>" in shown and '"><img src=x onerror=alert(4)>' in shown
    assert "INJECTED" not in shown
    desktop.mouse.move(0, 0)


def test_a_phone_shows_the_page_without_scrolling_sideways_and_a_tap_shows_the_crystal(phone: Any) -> None:
    assert phone.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    frames = phone.evaluate(FRAMES)
    assert max(width for _, width, _ in frames) <= 390
    phone.touchscreen.tap(*phone.evaluate(WORST))
    phone.wait_for_timeout(500)
    assert "worst</script>" in phone.evaluate(TOOLTIPS)


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_plots_of_two_equal_axes_are_square(request: pytest.FixtureRequest, device: str) -> None:
    square = ("target ", "false positive rate", "recall", "predicted probability", "predicted class")
    frames = request.getfixturevalue(device).evaluate(FRAMES)
    sizes = [frame for frame in frames if frame[0].startswith(square)]
    assert len(sizes) == 2 + 4
    for label, width, height in sizes:
        assert width > 200 and abs(width - height) <= 1, label


def test_plots_follow_the_colours_of_the_page(browser: Any, report: Path, desktop: Any) -> None:
    assert background(desktop) > 0.9
    with opened(browser, report, **DESKTOP, color_scheme="dark") as dark:
        assert background(dark) < 0.2


def background(tab: Any) -> float:
    """The level of most of the second plot, which is what is not drawn on."""
    return float(np.median(image(tab.locator("figure").nth(1).screenshot())))


def test_the_page_of_a_gallery_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    header = [f"e_form_{number}_eV_per_cell" for number in range(8)]
    words = ["runs/formation_energy/gated_norm_8000_and_more_than_a_line_of_a_phone_holds"]
    entry = gallery.Entry("table", "A table", caption=words, header=header, rows=[["0.04"] * 8])
    gallery.write_pages(tmp_path, "Paper", [], [entry])
    context = browser.new_context(offline=True, **PHONE)
    tab = context.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    context.close()


def image(png: bytes) -> np.ndarray:
    """Levels of the colours, 0 to 1."""
    return imread(io.BytesIO(png))[..., :3]
