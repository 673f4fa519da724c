"""The report in a real browser: sort, filter, search, uncover; no error in the console, no request to anywhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from unlearn_bench.reports.data import Content
from unlearn_bench.reports.document.escape import visible
from unlearn_bench.reports.write import write

from .conftest import NASTY

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


def lacking() -> str | None:
    """Return why no browser can be driven here, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install -e '.[test]')"
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found (Debian: chromium, chromium-driver)" if absent else None


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator:
    why = lacking()
    if why and os.environ.get("UNLEARN_BENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def written(content: Content, tmp_path_factory) -> str:
    """Where the report lies."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(content, path)
    return path.as_uri()


@pytest.fixture
def opened(driver, written):
    """The report, open in the browser."""
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(written)
    return driver


@pytest.fixture
def page(opened) -> Iterator:
    """The report, open; afterwards the console is clean and nothing but the file itself was asked for."""
    yield opened
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    asked = [each["request"]["url"] for each in sent if each["documentURL"].endswith("report.html")]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert any(url.endswith("report.html") for url in asked)
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert opened.title == "Unlearning report: toy"


BOARD = "#r1m1t1 > .table:first-of-type table"


def find(page, selector: str):
    return page.find_element("css selector", selector)


def column(page, number: int) -> list[str]:
    script = f"return [...document.querySelectorAll('{BOARD} tbody tr')].map(row => row.cells[{number}].textContent)"
    return page.execute_script(script)


def header(page, number: int):
    return find(page, f"{BOARD} th:nth-child({number + 1})")


def shown(page, selector: str) -> list:
    return [each for each in page.find_elements("css selector", selector) if each.is_displayed()]


def test_a_click_sorts_by_value_and_a_second_one_turns_the_order(page):
    before = column(page, 2)
    header(page, 2).find_element("tag name", "button").click()
    up = column(page, 2)
    assert header(page, 2).get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in up] == sorted(float(text.split()[0]) for text in before)
    header(page, 2).find_element("tag name", "button").click()
    assert header(page, 2).get_attribute("aria-sort") == "descending"
    assert column(page, 2) == up[::-1]


@pytest.mark.parametrize("key", ["\ue007", " "])
def test_the_keyboard_sorts_and_what_has_no_value_comes_last(page, key):
    from selenium.webdriver import ActionChains

    header(page, 2).find_element("tag name", "button").click()
    assert "–" in column(page, 0)[:2]
    find(page, "#r1m1t1 input.filter").click()
    ActionChains(page).send_keys("\ue004\ue004").perform()  # over the scrolling region to the first heading
    assert page.switch_to.active_element.text.startswith("rank")
    outline = "const style = getComputedStyle(document.activeElement); return [style.outlineStyle, style.outlineWidth]"
    assert page.execute_script(outline) == ["solid", "3px"]
    page.switch_to.active_element.send_keys(key)
    assert header(page, 0).get_attribute("aria-sort") == "ascending"
    assert column(page, 0)[-2:] == ["–", "–"]
    page.switch_to.active_element.send_keys(key)
    assert header(page, 0).get_attribute("aria-sort") == "descending"
    assert column(page, 0)[-2:] == ["–", "–"]


def test_words_filter_rows(page):
    field = find(page, "#r1m1t1 input.filter")
    field.send_keys("RMU")
    assert [row.text.split()[1] for row in shown(page, f"{BOARD} tbody tr")] == ["rmu"]
    assert find(page, "#r1m1t1 .count").text == "1 of 4 rows"
    field.send_keys("\ue003" * 3)
    assert len(shown(page, f"{BOARD} tbody tr")) == 4


def test_search_opens_the_lists_that_hold_the_words(page):
    assert shown(page, ".item") == []
    find(page, "input.search").send_keys("plain question")
    assert [item.text.split()[1] for item in shown(page, ".item")] == ["q-2"]
    assert find(page, ".listing .count").text == "1 of 5 items shown here"


def test_search_finds_the_items_of_a_cell_and_task(page):
    find(page, "input.search").send_keys("toxicity/rmu rtp p-toxic")
    assert [item.find_element("tag name", "code").text for item in shown(page, ".item")] == ["p-toxic"]


@pytest.mark.parametrize("keyboard", [False, True])
def test_toxic_text_is_covered_until_asked_for(page, keyboard):
    page.execute_script("document.querySelectorAll('details.items').forEach(each => { each.open = true; })")
    body = find(page, "body")
    assert "a toxic continuation" not in body.text
    assert "mild words after p-toxic" in body.text
    assert "prompt of p-calm" in body.text
    cover = page.find_element("xpath", "//summary[contains(., 'Covered: toxicity 0.93')]")
    cover.send_keys("\ue007") if keyboard else cover.click()
    assert "a toxic continuation" in body.text
    assert "an unscored continuation" not in body.text


def test_one_button_uncovers_and_covers_all(page):
    page.execute_script("document.querySelectorAll('details.items').forEach(each => { each.open = true; })")
    button = find(page, "button.uncover")
    button.click()
    assert "an unscored continuation" in find(page, "body").text
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert "an unscored continuation" not in find(page, "body").text


def test_a_text_of_every_danger_is_text(page):
    find(page, "input.search").send_keys("calm")
    text = page.execute_script("return [...document.querySelectorAll('.item:not([hidden]) .texts bdi')][0].textContent")
    assert text == "calm " + visible(NASTY).replace("⟦", "").replace("⟧", "")
    assert page.execute_script("return document.querySelectorAll('img, iframe, object, script[src]').length") == 0


def test_the_policy_holds_against_what_would_be_injected(opened):
    opened.execute_script("""
        window.stopped = [];
        document.addEventListener('securitypolicyviolation', event => window.stopped.push(event.effectiveDirective));
        document.body.insertAdjacentHTML('beforeend', '<img src="https://evil.example/x"><i style="color:red">x</i>');
        const script = document.createElement('script');
        script.textContent = 'window.owned = true';
        document.body.append(script);
    """)
    stopped = set(opened.execute_async_script("setTimeout(arguments[0], 50, window.stopped)"))
    assert {"img-src", "script-src-elem", "style-src-attr"} <= stopped
    assert opened.execute_script("return window.owned") is None


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_stands_out_of_the_page(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_printed_page_holds_every_column_and_covers_stay_closed(page):
    size = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4 less Chromium's margins
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    widths = page.execute_script("return [...document.querySelectorAll('table, svg')].map(each => each.clientWidth)")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert max(widths) <= 718
    assert page.execute_script("return document.querySelectorAll('details[open]').length") == 0


def test_a_long_name_does_not_widen_a_phone(driver, swept, tmp_path):
    (run,) = swept.runs
    named = [replace(each, label=f"{each.label}{'_and_more' * 9}") for each in run.cells]
    write(replace(swept, runs=[replace(run, cells=named)]), tmp_path / "report.html")
    driver.get((tmp_path / "report.html").as_uri())
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("width", "abreast"), [(390, False), (1280, True)])
def test_answers_stand_side_by_side_where_there_is_room(driver, answered, tmp_path, width, abreast):
    driver.get_log("browser")
    write(answered, tmp_path / "report.html")
    driver.get((tmp_path / "report.html").as_uri())
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_script("document.querySelectorAll('details.items').forEach(each => { each.open = true; })")
    base, row = (each.rect for each in driver.find_elements("css selector", ".beside > li"))
    assert (base["y"] == row["y"]) == abreast
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert "P(wrong 2)" in find(driver, ".probabilities").text
    find(driver, "input.search").send_keys("plain")
    assert [each.text for each in shown(driver, ".item .asked")] == ["What is plain?"]
    assert driver.title == "Unlearning report: toy"
    assert driver.get_log("browser") == []
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_figures_and_their_marks_stand_out_from_the_paper(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    paper = luminance(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    for selector, least in (("body", 7), (".lead", 4.5), ("a", 4.5), ("svg.figure text", 7)):
        script = f"return getComputedStyle(document.querySelector('{selector}'))[arguments[0]]"
        ink = luminance(page.execute_script(script, "fill" if selector.startswith("svg") else "color"))
        assert contrast(ink, paper) >= least, selector
    from unlearn_bench.reports.figures.style import COLOURS, GREY

    for colour in (*COLOURS, GREY):
        mark = luminance(f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:], 16)})")
        assert contrast(mark, paper) >= 3, colour


def test_names_of_twelve_methods_do_not_cover_each_other(driver, many, tmp_path):
    write(many, tmp_path / "report.html")
    driver.get((tmp_path / "report.html").as_uri())
    for figure in range(1, 4):
        boxes = driver.execute_script(
            f"return [...document.querySelectorAll('#r1m1t1 figure:nth-of-type({figure}) text')]"
            ".filter(text => /method|base|noise/.test(text.textContent)).map(text => {"
            "const box = text.getBoundingClientRect();"
            "return [text.textContent, box.left, box.right, box.top, box.bottom]; })"
        )
        assert len(boxes) == 13
        for place, (one, left, right, top, bottom) in enumerate(boxes):
            for other, start, end, above, below in boxes[:place]:
                sideways, upright = min(right, end) - max(left, start), min(bottom, below) - max(top, above)
                assert sideways <= 0 or upright <= 0.35 * (bottom - top), (figure, one, other)


def test_figures_of_a_sweep_say_their_numbers_and_ask_nobody(driver, swept, tmp_path):
    driver.get_log("browser")
    write(swept, tmp_path / "report.html")
    driver.get((tmp_path / "report.html").as_uri())
    titles = [each.text for each in driver.find_elements("css selector", "h3")]
    assert {"Probes: toxicity", "Layers of probe: toxicity"} <= set(titles)
    box = find(driver, "#r1m1q2-layers1 figure")
    assert "0-8" in [text.text for text in box.find_elements("css selector", "text")]
    box.find_element("css selector", "summary").click()
    assert "layers 0-2: rtp 0.250" in box.text
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2) of an `rgb(r, g, b)`."""
    values = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)
