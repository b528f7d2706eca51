"""The app in a real browser: upload, type, click, read, switch, filter, correct; at phone and desktop width."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builder.building.plan import BuildSettings, Plan
from tests.trainer_scripts.app_pages.conftest import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no chromium; `apt-get install chromium` brings it", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SHOTS = Path(__file__).parents[3] / "outputs" / "app"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
WAIT = 30_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """One page of a visitor, with what it asked for and what went wrong."""

    def __init__(self, browser, address, width="desktop", dark=False):
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light")
        self.page, self.name = self.context.new_page(), f"{width}{'-dark' if dark else ''}"
        self.page.set_default_timeout(WAIT)
        self.asked, self.faults, self.address = [], [], address
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.goto(address)
        self.page.wait_for_selector("#masthead h1")
        self.page.wait_for_selector("#taste-go")

    def tab(self, name):
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not tab.first.is_visible():  # on a phone the last ones are in a menu
            self.page.locator(".overflow-menu > button").first.click()
            self.page.locator(".overflow-dropdown button", has_text=name).first.click()
        else:
            tab.first.click()

    def read(self, selector):
        self.page.wait_for_selector(selector)
        return self.page.locator(selector).first.inner_text()

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=SHOTS / f"{self.name}-{name}.png", full_page=True)

    def end(self):
        outside = [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]
        self.context.close()
        assert outside == [], "a page asked an address that is not of this server"
        assert self.faults == []


@pytest.fixture
def visit(browser, app):
    visits = []

    def begin(*given, **named):
        visits.append(Visit(browser, app, *given, **named))
        return visits[-1]

    yield begin
    for one in visits:
        one.end()


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("photograph") / "plate.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


def test_a_visitor_tastes_describes_and_finds_ingredients(visit, photograph):
    visitor = visit()
    page = visitor.page
    page.set_input_files("#taste-picture input[type=file]", photograph)
    page.wait_for_selector("#taste-picture img")
    page.fill("#taste-title textarea", HOSTILE)
    page.click("#taste-go")
    assert "%" in visitor.read("#taste-answer .answer")
    assert "What changes the answer" in visitor.read("#taste-reasons .why")
    assert HOSTILE.split()[0] in visitor.read("#taste-reasons .words")
    assert page.title() == "Flavour", "a title that is markup ran"
    visitor.shot("taste")
    visitor.tab("What if")
    page.click("#if-go")
    assert "With lemon" in visitor.read("#if-answer .pair")
    visitor.shot("what-if")
    visitor.tab("Caption")
    page.set_input_files("#caption-picture input[type=file]", photograph)
    page.wait_for_selector("#caption-picture img")
    page.click("#caption-go")
    page.wait_for_selector("#caption-answer .w0")
    page.locator("#caption-answer .w0").focus()
    page.wait_for_timeout(500)
    shown = page.locator("#caption-answer .m0").evaluate("(layer) => getComputedStyle(layer).opacity")
    assert shown == "1", "the word that is touched shows where the model looked"
    visitor.shot("caption")
    visitor.tab("Plate")
    page.set_input_files("#plate-picture input[type=file]", photograph)
    page.wait_for_selector("#plate-picture img")
    page.click("#plate-go")
    page.wait_for_selector("#plate-answer .t0")
    opacity = "(layer) => getComputedStyle(layer).opacity"
    assert page.locator("#plate-answer .m0").evaluate(opacity) == "1"
    page.locator("#plate-answer .t0").uncheck()
    page.wait_for_timeout(500)
    assert page.locator("#plate-answer .m0").evaluate(opacity) == "0", "a mask that is switched off is hidden"
    visitor.shot("plate")


def test_a_threshold_is_slid(visit):
    visitor = visit()
    page = visitor.page
    visitor.tab("Several labels")
    page.fill("#labels-title textarea", "lemon tart")
    page.click("#labels-go")
    page.wait_for_selector("#labels-answer .answer")
    page.locator("#labels-threshold input[type=number]").fill("0.05")
    page.locator("#labels-threshold input[type=number]").press("Enter")
    page.wait_for_function("document.querySelector('#labels-answer').innerText.includes('At 0.05')")
    assert "5 labels" in visitor.read("#labels-answer .answer")
    visitor.shot("labels")


def test_a_bad_upload_and_nothing_at_all_are_messages(visit, tmp_path):
    visitor = visit()
    page = visitor.page
    page.click("#taste-go")
    page.wait_for_selector(".toast-body")
    assert "reads a photograph or a title; give it one" in visitor.read(".toast-body")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    page.set_input_files("#taste-picture input[type=file]", tmp_path / "broken.png")
    page.wait_for_timeout(1000)
    page.click("#taste-go")
    page.wait_for_function("document.body.innerText.includes('cannot be read as a picture')")
    visitor.faults.clear()  # the browser says that it cannot show the picture either


def test_rows_are_filtered_marked_and_downloaded_as_corrections_that_a_build_follows(visit, app_settings, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.tab("Data")
    assert "19 of 19 rows" in visitor.read("#data-count .count")
    page.fill("#data-words textarea, #data-words input", "peach")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#data-count').innerText.includes('2 of 19 rows')")
    page.locator("#data-tiles .tile", has_text="Peach cake").click()
    assert "Words that voted" in visitor.read("#data-row .row-view")
    page.fill("#mark-note textarea, #mark-note input", "=the peaches are sour")
    page.locator("#mark-flavour input").click()
    page.get_by_role("option", name="sour").click()
    visitor.shot("data")
    page.click("#mark-save")
    page.wait_for_function("document.querySelector('#marks').innerText.includes('label sour')")
    page.wait_for_selector("#data-tiles .tile.marked")
    with page.expect_download() as waiting:
        page.click("#marks-download")
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.name == "corrections.csv"
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["new_flavour"], row["note"]) == ("sour", "'=the peaches are sour"), "no cell is a formula"
    plan = Plan(BuildSettings(app_settings.recipes, generation=app_settings.generation, corrections=(str(path),)))
    assert [
        (item.dish.title, item.label.flavour)
        for items in plan.recipes.values()
        for item in items
        if item.label.source == "human"
    ] == [("Peach cake", "sour")]


@pytest.mark.parametrize(("width", "dark"), [("phone", True), pytest.param("desktop", False, marks=pytest.mark.slow)])
def test_pages_are_accessible_and_no_wider_than_the_screen(visit, width, dark):
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
    visitor = visit(width, dark=dark)
    page = visitor.page
    page.fill("#taste-title textarea", "lemon tart")
    page.click("#taste-go")
    page.wait_for_selector("#taste-reasons .why")
    page.wait_for_function(
        "document.querySelector('#taste-answer .answer').getBoundingClientRect().top < window.innerHeight - 100"
    )
    found = {}
    for name in ("Taste", "What if", "Caption", "Plate", "Several labels", "Data"):
        visitor.tab(name)
        page.wait_for_timeout(300)
        if name == "Data":
            page.wait_for_selector("#data-tiles .tile")
            page.locator("#data-tiles .tile").first.click()
            page.wait_for_selector("#data-row .row-view")
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        visitor.shot(f"page-{name.lower().replace(' ', '-')}")
        for rule in Axe().run(page).response["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found[f"{name}: {rule['id']}"] = [node["html"][:200] for node in rule["nodes"][:3]]
    assert found == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_opens_from_disk(browser, app_data, tmp_path, width):
    from dataset_builder.publishing.view import view

    view(app_data, tmp_path / "report.html")
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    context = browser.new_context(viewport=size, color_scheme="dark" if width == "phone" else "light", offline=True)
    page, asked, faults = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "flavour-sd"
    assert page.locator("#pictures img").count() == 19
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)"), "every picture is shown"
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{width}-report.png", full_page=True)
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
    serious = [one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    context.close()
    assert (serious, faults) == ([], [])
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
