"""A browser, and pages in it that may load nothing from elsewhere."""

import shutil
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    """Return a running browser."""
    playwright_api = pytest.importorskip(
        "playwright.sync_api",
        reason="needs the package playwright: run `make test-browser`",
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH, such as Debian's package chromium")
    with playwright_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield running
        running.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page; afterwards check errors and requests.

    Pages are files, and load nothing but files; a page of a server loads only from it.
    """
    contexts, errors, urls, allowed = [], [], [], []
    origins = {"file", "data", "blob"}

    def opened(page_or_path, *, error=None, **options):
        allowed.extend([] if error is None else [error])
        context = browser.new_context(**{"color_scheme": "light", **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda problem: errors.append(str(problem)))
        context.on("request", lambda request: urls.append(request.url))
        url = page_or_path if isinstance(page_or_path, str) else page_or_path.as_uri()
        if urlsplit(url).scheme == "http":
            origins.add(urlsplit(url).netloc)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    # The second is about the test that reads pixels.
    known = (*allowed, "willReadFrequently")
    assert [text for text in errors if not any(each in text for each in known)] == []
    assert {urlsplit(url).netloc or urlsplit(url).scheme for url in urls} <= origins
