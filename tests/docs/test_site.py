"""The documentation as a web site: built without a warning, whole, and without anything from elsewhere."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sysconfig
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.docs_support import DOCS, ROOT


class Page(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(found.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs-site` does it; any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = Path(sysconfig.get_path("scripts")) / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site, read."""
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_on_the_site(site: Path) -> None:
    """Each page of docs/ has its page on the site."""
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists()


def test_no_link_is_dead(pages: dict[Path, Page]) -> None:
    """Every link of every page leads to a page, and to an anchor of it."""
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            target, _, anchor = link.partition("#")
            file = (path.parent / unquote(target)).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            known = not anchor or file not in pages or anchor in pages[file].ids or anchor.startswith("__")
            if not file.exists() or not known:
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    """No page loads a script, a style, a font or a picture from another host."""
    for path, page in pages.items():
        for source in page.loads:
            assert "://" not in source
            assert not source.startswith("//")
            assert (path.parent / source.partition("?")[0]).resolve().exists(), source
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8")


@pytest.mark.parametrize("picture", sorted(DOCS.rglob("*.svg")), ids=lambda path: str(path.stem))
def test_pictures_are_whole_and_load_nothing(picture: Path) -> None:
    """Every picture is XML with a size, and refers to nothing on another host."""
    text = picture.read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314 - our own file
    assert root.tag.endswith("svg")
    assert root.get("viewBox") or root.get("width")
    assert "url(http" not in text
    assert "@import" not in text


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: str(path.stem))
def test_texts_of_pictures_fit(picture: Path) -> None:
    """Every text of a drawn picture has room in the narrowest box that it begins in, also in a font of wide letters."""
    root = ET.fromstring(picture.read_text(encoding="utf-8"))  # noqa: S314 - our own file
    namespace = "{http://www.w3.org/2000/svg}"
    size = float(root.get("font-size", "0"))
    boxes = [
        [float(box.get(name, "0")) for name in ("x", "y", "width", "height")]
        for box in root.iter(f"{namespace}rect")
    ]
    for text in root.iter(f"{namespace}text"):
        x, y, words = float(text.get("x", "")), float(text.get("y", "")), text.text or ""
        wide = len(words) * size * (0.6 if text.get("font-weight") else 0.53)
        begin = x - wide / 2 if text.get("text-anchor") == "middle" else x
        begin = x - wide if text.get("text-anchor") == "end" else begin
        around = [box for box in boxes if box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]]
        box = min(around, key=lambda box: box[2])
        assert box[0] <= begin, words
        assert begin + wide <= box[0] + box[2], words


def test_the_demonstrations_picture_is_of_the_demonstration() -> None:
    """The picture in the README shows every step that the demonstration has."""
    text = (DOCS / "demo.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    source = (ROOT / "dev" / "demo.py").read_text(encoding="utf-8")
    assert "docs/demo.svg" in (ROOT / "README.md").read_text()
    for word in ("The stage", "declares the registry", "A namespace is born", "Everything held"):
        assert word in source
        assert word in text
