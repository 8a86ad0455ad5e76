#!/usr/bin/env python3
"""Looks at pages of retake in a real browser, and fails for whatever a reader would trip over.

    look.py report FILE.html ...          pages as files, at three widths, light and dark
    look.py live ADDRESS RUN TRACE        the pages of `retake serve`, while spans arrive
    look.py entry ADDRESS LINK TOKEN      the way in where a token is needed

RETAKE_TEST_CHROMIUM names the browser; with SCREENSHOTS=FOLDER pictures are kept there for a person.
"""
import json
import os
import pathlib
import sys
import urllib.request

from playwright.sync_api import expect, sync_playwright

WIDTHS = [400, 1200, 2000]
SCREENSHOTS = os.environ.get("SCREENSHOTS")


def shot(page, name):
    if SCREENSHOTS:
        page.screenshot(path=str(pathlib.Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def watched(browser, **options):
    """A page whose messages, errors and requests are collected."""
    page = browser.new_context(**options).new_page()
    page.seen = []
    page.on("console", lambda message: page.seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: page.seen.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (page.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return page


def fits(page, what):
    """Nothing but what scrolls in a frame of its own is wider than the window."""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{what}: {wide} pixels wider than the window"


def has_names(page, what):
    """Every control and picture has an accessible name."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, button, textarea, a, svg[role=img], [role=region]')]
             .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
             .map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert not nameless, f"{what}: without a name: {nameless}"


def searches(page, what):
    page.keyboard.press("/")
    page.keyboard.type("retrieve")
    count = page.locator(".found").count()
    if count == 0:
        return
    page.keyboard.press("Enter")
    expect(page.locator(".current")).to_have_count(1)
    expect(page.locator(".search output")).to_have_text(f"1 of {count}")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator(".found")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("no such thing anywhere")
    expect(page.locator(".search output")).to_have_text("nothing found")
    page.keyboard.press("Escape")


def zooms(page, what):
    flame = page.locator(".flame").first
    if flame.count():
        box = flame.locator(".box").nth(1)
        before = box.get_attribute("width")
        box.click()
        assert box.get_attribute("width") == "100.000%", f"{what}: a click does not zoom"
        flame.focus()
        page.keyboard.press("Escape")
        assert abs(float(box.get_attribute("width")[:-1]) - float(before[:-1])) < 0.01, what
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    waterfall = page.locator(".waterfall:visible").first
    if waterfall.count():
        bars = waterfall.locator(".bars")
        whole = bars.get_attribute("viewBox")
        waterfall.focus()
        page.keyboard.press("+")
        assert bars.get_attribute("viewBox") != whole, f"{what}: + does not zoom"
        page.keyboard.press("0")
        assert bars.get_attribute("viewBox") == whole, what
        row = waterfall.locator(".hit").first
        row.evaluate("(element) => element.scrollIntoView({ block: 'center' })")
        place = row.bounding_box()
        y = place["y"] + place["height"] / 2
        page.mouse.move(place["x"] + place["width"] * 0.4, y)
        page.mouse.down()
        page.mouse.move(place["x"] + place["width"] * 0.6, y)
        page.mouse.up()
        assert bars.get_attribute("viewBox") != whole, f"{what}: dragging does not zoom"
        row.dblclick(position={"x": place["width"] * 0.5, "y": place["height"] / 2})
        assert bars.get_attribute("viewBox") == whole, f"{what}: a double click does not show the whole"


def report(browser, path):
    for scheme in ["light", "dark"]:
        for width in WIDTHS:
            what = f"{path.stem} {width} {scheme}"
            page = watched(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
            asked = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(path.as_uri())
            shot(page, what.replace(" ", "-"))
            fits(page, what)
            has_names(page, what)
            searches(page, what)
            zooms(page, what)
            fits(page, what)
            assert asked == [path.as_uri()], f"{what}: asked for {asked}"
            assert page.seen == [], f"{what}: {page.seen}"
            page.context.close()
    # Everything is there without scripts.
    page = watched(browser, java_script_enabled=False, viewport={"width": 1200, "height": 900})
    page.goto(path.as_uri())
    assert page.locator(".search").count() == 0
    page.context.close()


def live(browser, address, run, trace):
    page = watched(browser, viewport={"width": 1200, "height": 900})
    page.goto(f"http://{address}/")
    expect(page.locator("#live")).to_contain_text("live", timeout=10_000)
    rows = page.locator("table.history tbody tr").count()
    page.goto(f"http://{address}/runs/{run}")
    expect(page.locator("#live")).to_contain_text("live", timeout=10_000)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        fits(page, f"run {width}")
    page.set_viewport_size({"width": 1200, "height": 900})
    has_names(page, "run")
    searches(page, "run")
    zooms(page, "run")
    shot(page, "live-run")
    page.goto(f"http://{address}/runs/{run}/traces/{trace}")
    zooms(page, "trace")
    page.locator("details.span summary").first.click()
    fits(page, "trace")
    shot(page, "live-trace")
    page.goto(f"http://{address}/sql")
    page.locator("textarea").fill("select stage, count(*) as spans from spans group by stage order by spans desc")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("region", name="Result")).to_be_visible()
    fits(page, "sql")
    shot(page, "live-sql")

    # A run arrives while the history is looked at.
    page.goto(f"http://{address}/")
    expect(page.locator("#live")).to_contain_text("live", timeout=10_000)
    hostile = "<img src=x onerror=alert(1)>\u202e"
    value = lambda text: {"stringValue": text}
    span = {
        "traceId": "f" * 32, "spanId": "e" * 16, "name": hostile,
        "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": "1790000001000000000",
        "attributes": [{"key": hostile, "value": value(hostile)}],
    }
    body = {"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": value(hostile)}]},
        "scopeSpans": [{"spans": [span]}],
    }]}
    asked = urllib.request.Request(
        f"http://{address}/v1/traces", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert urllib.request.urlopen(asked).status == 200
    expect(page.locator("table.history tbody tr")).to_have_count(rows + 1, timeout=15_000)
    shot(page, "live-runs")
    page.locator("table.history tbody tr a").first.click()
    expect(page.locator("h1")).to_contain_text("img src")
    assert page.locator("img").count() == 0
    shot(page, "live-hostile")
    assert page.seen == [], page.seen


def entry(browser, address, link, token):
    def sees_runs(page):
        expect(page.locator("h1")).to_have_text("Runs")
        expect(page.locator("#live")).to_contain_text("live", timeout=10_000)
        assert page.url == f"http://{address}/", page.url
        assert page.evaluate("document.cookie") == "", "a script can read the cookie"
        [cookie] = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict", cookie
        page.locator("table.history tbody tr a").first.click()
        expect(page.locator("#stages")).to_be_visible()
        page.reload()
        expect(page.locator("#stages")).to_be_visible()

    page = watched(browser, viewport={"width": 1200, "height": 900})
    page.goto(f"http://{address}{link}")
    sees_runs(page)
    assert page.seen == [], page.seen

    for scheme in ["light", "dark"]:
        page = watched(browser, viewport={"width": 400, "height": 900}, color_scheme=scheme)
        page.goto(f"http://{address}{link}")
        expect(page.get_by_role("alert")).to_contain_text("used before")
        page.goto(f"http://{address}/runs/last")
        assert page.get_by_role("alert").count() == 0
        has_names(page, "entry")
        page.keyboard.type("not the token at all")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        fits(page, "entry")
        shot(page, f"entry-{scheme}")
        assert token not in page.content()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Show the runs").click()
        sees_runs(page)


def main():
    what, *rest = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["RETAKE_TEST_CHROMIUM"],
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        if what == "report":
            for path in rest:
                report(browser, pathlib.Path(path).resolve())
        else:
            {"live": live, "entry": entry}[what](browser, *rest)
        browser.close()


main()
