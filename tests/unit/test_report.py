"""Report: self-contained, everything escaped, plotly.js once, order kept, bad input refused."""

from __future__ import annotations

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure

from thalweg.report import Report

NASTY = '<script>alert("x")</script> & "quotes"'


class Page(HTMLParser):
    """Collects tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.shown)


def test_page_is_well_formed_and_loads_nothing() -> None:
    page = Report("Title", "Subtitle")
    page.section("One").text("Text.").image(Figure(), "a figure").interactive(go.Figure(go.Scatter(y=[1, 2])))
    page.section("Two").interactive(go.Figure(go.Surface(z=np.eye(3))))
    parsed = Page(page.to_html())
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", page.to_html(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_plotly_stands_inside_once_and_only_when_needed() -> None:
    plain = Report("Title")
    plain.section("One").text("Text.")
    assert "<script" not in plain.to_html()
    page = Report("Title")
    for _ in range(3):
        page.section("Figure").interactive(go.Figure(go.Scatter(y=[1, 2])))
    long = [script for script in Page(page.to_html()).scripts if len(script) > 1_000_000]
    assert len(long) == 1
    assert page.to_html().count('class="plot"') == 3


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    page = Report(NASTY, NASTY).lead(NASTY).summary([("helped", NASTY)])
    section = page.section(NASTY).text(NASTY).heading(NASTY).bullets([NASTY]).conclusion(NASTY)
    section.image(Figure(), NASTY, NASTY).table([NASTY], [[NASTY]], NASTY)
    section.interactive(go.Figure(go.Scatter(y=[1.0], name=NASTY)), NASTY)
    text = page.to_html()
    assert "<script>alert" not in text
    parsed = Page(text)
    assert parsed.open == []
    # title, h1, subtitle, lead, summary, contents, h2, p, h3, li, conclusion, two captions, table: caption, head, cell
    assert parsed.text.count('alert("x")') == 16
    (data,) = [json.loads(script) for script in parsed.scripts if script.startswith("{")]
    assert data["data"][0]["name"] == NASTY


def test_code_and_strong_are_the_only_markup() -> None:
    page = Report("Title")
    page.section("One").text("`a**b**<i>` and **bold** and *one star*")
    text = page.to_html()
    assert "<code>a**b**&lt;i&gt;</code> and <strong>bold</strong> and *one star*" in text


def test_sections_keep_their_order_and_anchors_are_unique() -> None:
    page = Report("Title")
    names = ["Zebra", "apple", "Same name", "Same name", "???", "Same name"]
    for name in names:
        page.section(name).text(f"body of {name}")
    text = page.to_html()
    assert [section.title for section in page.sections] == names
    ids = re.findall(r'<section id="([^"]+)"', text)
    links = re.findall(r'<a href="#([^"]+)"', text)
    assert ids == links
    assert len(set(ids)) == len(names)
    places = [text.index(f'id="{anchor}"') for anchor in ids]
    assert places == sorted(places)


def test_blocks_keep_their_order() -> None:
    page = Report("Title")
    section = page.section("One").text("first").conclusion("second", "hurt").text("third")
    section.bullets(["fourth"]).table(["h"], [["fifth"]])
    text = page.to_html()
    places = [text.index(word) for word in ("first", "second", "third", "fourth", "fifth")]
    assert places == sorted(places)
    assert '<p class="conclusion hurt">second</p>' in text


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xffrest", b'<?xml version="1.0"?><svg></svg>'])
def test_images_from_bytes_and_files_are_data_uris(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    page = Report("Title")
    page.section("One").image(data).image(path)
    sources = [attributes["src"] for tag, attributes in Page(page.to_html()).tags if tag == "img"]
    for source in sources:
        assert source is not None
        assert base64.b64decode(source.partition("base64,")[2]) == data
    assert len(sources) == 2


def test_numbers_stand_to_the_right() -> None:
    page = Report("Title")
    rows = [["a", 1.23456, 1200, "1.2 ± 0.3", "−4", "3.11.7"], ["b", 2.0, 3, "4", "−0.5 (−1 to 2)", "2.13.0+cpu"]]
    page.section("One").table(["name", "x", "n", "y", "z", "version"], rows)
    text = page.to_html()
    assert '<td class="n">1.235</td><td class="n">1,200</td><td class="n">1.2 ± 0.3</td><td class="n">−4</td>' in text
    assert "<td>3.11.7</td>" in text
    assert '<th>name</th><th class="n">x</th>' in text


def test_missing_values_become_null() -> None:
    page = Report("Title")
    page.section("One").interactive(go.Figure(go.Scatter(x=[0, 1], y=[math.nan, 1.0])))
    (data,) = [json.loads(script) for script in Page(page.to_html()).scripts if script.startswith("{")]
    assert data["data"][0]["y"] == [None, 1.0]


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    page = Report("Title")
    assert page.write(path) == path
    assert path.read_text(encoding="utf-8") == page.to_html()
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("thalweg.report.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        Report("Title").write(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Report: title must be a string, got 3"):
        Report(3)  # type: ignore[arg-type]
    section = Report("Title").section("One")
    with pytest.raises(ValueError, match=r"Section.conclusion: verdict must be one of .*'helped'.* got 'great'"):
        section.conclusion("text", "great")
    with pytest.raises(ValueError, match=r"Section.table: every row must have 2 cells, got 1"):
        section.table(["a", "b"], [["only one"]])
    with pytest.raises(TypeError, match=r"Section.interactive: figure must be a plotly figure"):
        section.interactive({"data": []})
    with pytest.raises(ValueError, match=r"Section.interactive: height must be an integer >= 1, got 0"):
        section.interactive(go.Figure(), height=0)
    with pytest.raises(TypeError, match=r"Section.image: source must be a matplotlib figure, a path or bytes"):
        section.image(3)
    with pytest.raises(ValueError, match=r"Section.image: source must hold a PNG, JPEG or SVG image"):
        section.image(b"GIF89a")
    with pytest.raises(FileNotFoundError):
        section.image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match=r"Report.summary: verdict"):
        Report("Title").summary([("good", "text")])
    assert "<p class=" not in section._html(1)  # nothing half-done was added
