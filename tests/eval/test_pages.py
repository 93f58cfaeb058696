"""Pages in a real browser: what a reader sees, hovers, switches, sorts, prints and hears.

Playwright drives Debian's Chromium: its client needs no driver of its own, prints to PDF, and the
package of axe for it on PyPI has a current axe-core.
"""

import io
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictured import image_checkpoint

from diffpolicy.checkpoint import save_policy
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.sweep import sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
RESULTS = Path(__file__).parents[2] / "eval" / "results"
STEPS = (1, 2)
FILMS = 2

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of a sweep of late chunks with pictures and films."""
    out = tmp_path_factory.mktemp("pages")
    (out / "run").mkdir()
    save_policy(out / "run" / "policy.safetensors", image_checkpoint("image", "place"))
    small = {"episodes": 6, "envs": 3, "batch": 16, "workers": 1, "engine": "eager", "ddpm": False}
    sweep(
        SweepConfig(
            run=out / "run", ddim_steps=STEPS, ms_per_step=120.0, videos=FILMS, out=out, **small
        )
    )
    return out / "report.html"


@pytest.fixture
def opened(browser, report) -> Iterator:
    """Function opened(path, **options of the context) -> page; no error, nothing from outside."""
    contexts, wrong = [], []

    def open_page(path: Path = report, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        requested: list[str] = []
        page.goto(path.as_uri())
        others = [u for u in requested if not u.startswith(("data:", "blob:")) and u != page.url]
        wrong.extend(others)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def shown_marks(page) -> int:
    return page.locator(".mark:visible").count()


# Plot


def test_hover_and_keyboard_show_the_figures_of_a_budget(opened):
    page = opened()
    tip, marks = page.locator("#tip"), page.locator(".mark:visible")
    assert tip.is_hidden()
    marks.first.locator(".hit").hover(force=True)
    assert f"{STEPS[0]} step" in tip.inner_text() and "of 6 (95 %" in tip.inner_text()
    page.mouse.move(1, 1)
    assert tip.is_hidden()
    page.locator("[data-axes] input").first.focus()
    page.keyboard.press("Tab")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.is_visible() and tip.inner_text() != first
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_switches_of_a_clock_a_kind_and_the_axis_change_the_plot(opened):
    page = opened()
    whole = shown_marks(page)
    clock = page.locator("[data-hides=clock]").first
    clock.uncheck()
    assert shown_marks(page) == whole // 2
    clock.check()
    kind = page.locator("[data-hides=kind]").first
    kind.uncheck()
    assert shown_marks(page) == 0
    kind.check()
    before = page.locator(".mark:visible").last.get_attribute("transform")
    page.get_by_label("linear").check()
    assert shown_marks(page) == whole
    assert page.locator(".mark:visible").last.get_attribute("transform") != before


def test_the_plot_and_the_tables_are_there_without_a_script(opened):
    page = opened(java_script_enabled=False)
    assert shown_marks(page) > 0 and page.locator("table .more:visible").count() > 0
    assert page.locator("th button").count() == 0


# Table and grid


def test_the_table_sorts_by_its_heads(opened):
    page = opened()
    table = page.locator("table.sortable").first
    head = table.locator("thead th").filter(has_text="p50 ms")
    column = head.evaluate("head => head.cellIndex")

    def values() -> list[float]:
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
        return [float(cell) for cell in cells]

    for direction in ("ascending", "descending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == direction
        assert values() == sorted(values(), reverse=direction == "descending")
    assert table.locator("[aria-sort]").count() == 1


def test_more_columns_are_shown_on_demand(opened):
    page = opened()
    assert page.get_by_text("seam jerk").first.is_hidden()
    button = page.get_by_role("button", name="More columns")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert page.get_by_text("seam jerk").first.is_visible()
    assert page.get_by_text("deadline misses").first.is_visible()


def test_a_cell_tells_its_episode_and_opens_its_film(opened):
    page = opened()
    cell = page.locator(".grid a").first
    cell.hover()
    assert "seed 10000" in page.locator("#tip").inner_text()
    assert "score" in page.locator("#tip").inner_text()
    target = cell.get_attribute("href")
    cell.click()
    assert page.url.endswith(target) and page.locator(f"figure{target}:focus").count() == 1


def test_the_names_of_the_grid_stay_when_it_scrolls(opened):
    page = opened(width=240)
    region, name = page.locator(".grid .scroll").first, page.locator(".grid th").first
    region.evaluate("region => { region.scrollLeft = 1e4; }")
    assert region.evaluate("region => region.scrollLeft") > 0
    assert name.bounding_box()["x"] >= region.bounding_box()["x"]


# Films

PIXELS = "canvas => canvas.toDataURL()"


def test_films_play_until_they_are_stopped(opened):
    page = opened()
    film = page.locator(".film").first
    film.scroll_into_view_if_needed()
    film.locator("canvas").wait_for()
    assert film.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    canvas, slider = film.locator("canvas"), film.locator("input")
    page.wait_for_function("slider => Number(slider.value) > 1", arg=slider.element_handle())
    film.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(100)
    stopped = canvas.evaluate(PIXELS)
    page.wait_for_timeout(600)
    assert canvas.evaluate(PIXELS) == stopped
    slider.fill("0")
    page.wait_for_timeout(100)
    assert canvas.evaluate(PIXELS) != stopped
    film.get_by_role("button", name="Play").click()
    page.wait_for_function("slider => Number(slider.value) > 0", arg=slider.element_handle())


def test_a_frame_on_the_canvas_is_that_of_the_picture(opened, report):
    """The last frame, composed of all before it, against the decoder of Pillow."""
    import numpy as np
    from PIL import Image

    page = opened(reduced_motion="reduce")
    film = page.locator(".film").first
    film.locator("canvas").wait_for()
    slider = film.locator("input")
    last = slider.get_attribute("max")
    slider.fill(last)
    page.wait_for_timeout(500)
    uri = film.locator("canvas").evaluate(PIXELS)
    seen = _decoded(uri)
    whole = Image.open(sorted((report.parent / "videos").iterdir())[0])
    whole.seek(int(last))
    wanted = np.array(whole.convert("RGB"), int)
    assert np.abs(seen - wanted).mean() < 1


def _decoded(uri: str):
    import base64

    import numpy as np
    from PIL import Image

    content = base64.b64decode(uri.partition(",")[2])
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"), int)


def test_films_stand_still_where_less_motion_is_wanted(opened):
    page = opened(reduced_motion="reduce")
    film = page.locator(".film").first
    film.scroll_into_view_if_needed()
    film.get_by_role("button", name="Play").wait_for()
    page.wait_for_timeout(500)
    assert film.locator("input").input_value() == "0"


# Phone, print, screen reader


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_the_page_is_no_wider_than_the_window(opened, width):
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_print_has_all_sections_and_what_is_folded_away(opened):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    page = opened()
    heads = page.locator("h1, h2, summary").all_inner_texts()
    text = "".join(each.extract_text() for each in pypdf.PdfReader(io.BytesIO(page.pdf())).pages)
    text = " ".join(unicodedata.normalize("NFKC", text).split())  # ligatures
    for head in [*heads, "seam jerk", "Intervals of success are Wilson's", "control dt s"]:
        assert " ".join(head.split()) in text, head


@pytest.fixture(scope="module")
def pages(report, tiny_run, tmp_path_factory) -> dict[str, Path]:
    """A page of each kind."""
    from diffpolicy.eval.compare_config import CompareConfig
    from diffpolicy.eval.compare_files import compare
    from diffpolicy.eval.data_config import OfflineConfig
    from diffpolicy.eval.offline import offline
    from diffpolicy.eval.redraw import redraw
    from diffpolicy.eval.report_config import ReportConfig

    out = tmp_path_factory.mktemp("drawn")
    names = ("balance_sweep", "balance_delays", "suite_quick")
    redraw(ReportConfig(tuple(RESULTS / f"{name}.json" for name in names), out=out))
    files = tuple(RESULTS / f"prediction_pusht{end}.json" for end in ("", "_v"))
    compare(CompareConfig(files, across="best", page=out / "compare.html"))
    drawn = {name: out / f"{name}.html" for name in (*names, "compare")}
    offline(
        OfflineConfig(run=tiny_run, out=out / "offline", ddim_steps=(1, 2), latency_seconds=0.05)
    )
    return {"report": report, **drawn, "offline": out / "offline" / "report.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "kind", ["report", "balance_sweep", "balance_delays", "suite_quick", "compare", "offline"]
)
def test_axe_finds_nothing_serious(opened, pages, kind, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is absent")
    page = opened(pages[kind], color_scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = axe.Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []


@pytest.mark.parametrize("kind", ["balance_delays", "suite_quick", "offline"])
def test_plots_are_as_dark_or_light_as_their_page(opened, pages, kind):
    import numpy as np
    from PIL import Image

    page = opened(pages[kind], color_scheme="dark")
    plot = page.locator(".picture img")
    assert np.median(Image.open(io.BytesIO(plot.screenshot())).convert("L")) < 32
    page.emulate_media(color_scheme="light")
    assert np.median(Image.open(io.BytesIO(plot.screenshot())).convert("L")) == 255


def test_a_page_has_one_title_its_landmarks_and_less_than_5_megabytes(opened, report):
    page = opened()
    for selector in ("h1", "main", "header", "footer"):
        assert page.locator(selector).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    assert report.stat().st_size < 5e6
