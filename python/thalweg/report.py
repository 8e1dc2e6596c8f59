"""Report: one self-contained HTML page made of sections. Knows figures as images or plotly JSON, nothing of what they show."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _check
from ._extras import require

VERDICTS = {
    "helped": "helped",
    "mixed": "mixed",
    "none": "no clear difference",
    "hurt": "hurt",
    "note": "note",
}

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")
_NUMBER = re.compile(r"[−+-]?\d[\d,]*(\.\d+)?(e[−+-]?\d+)?(\s?%)?(\s*[±(].*)?", re.IGNORECASE)


def _inline(text: str) -> str:
    """Escape `text`; then backticks mark code and double asterisks strong words, nothing else is markup."""
    escaped = html.escape(text, quote=True)
    parts = _CODE.split(escaped)  # odd entries are code
    return "".join(
        f"<code>{part}</code>" if index % 2 else _STRONG.sub(r"<strong>\1</strong>", part)
        for index, part in enumerate(parts)
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


def _image_uri(who: str, source: Any) -> str:
    """Return PNG, JPEG or SVG data, a file of these, or a matplotlib figure as a data URI."""
    if hasattr(source, "savefig"):
        buffer = io.BytesIO()
        source.savefig(buffer, format="png")
        data = buffer.getvalue()
    elif isinstance(source, (str, os.PathLike)):
        data = Path(source).read_bytes()
    elif isinstance(source, bytes):
        data = source
    else:
        raise TypeError(f"{who}: source must be a matplotlib figure, a path or bytes, got {_check.describe(source)}")
    kind = next((mime for start, mime in _SIGNATURES if data.startswith(start)), None)
    if kind is None and b"<svg" in data[:2000]:
        kind = "image/svg+xml"
    if kind is None:
        raise ValueError(f"{who}: source must hold a PNG, JPEG or SVG image, got {len(data)} other bytes")
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _plotly_json(who: str, figure: Any) -> str:
    """Return a plotly figure as JSON that cannot close the script element it stands in."""
    if not hasattr(figure, "to_plotly_json"):
        raise TypeError(f"{who}: figure must be a plotly figure, got {_check.describe(figure)}")
    text: str = require("plotly.io", who).to_json(figure, validate=False)
    plain = json.loads(text)
    plain.get("layout", {}).pop("template", None)  # the page brings its own colours, for light and dark
    return json.dumps(plain, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _cell(value: Any) -> tuple[str, bool]:
    """Return a table cell's text and whether it is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = str(value)
        return _inline(text), _NUMBER.fullmatch(text) is not None
    return html.escape(f"{value:,}" if isinstance(value, int) else f"{value:.4g}"), True


@dataclass
class Section:
    """A part of a report: a heading and blocks in the order in which they were added.

    Text is plain: everything is escaped; backticks mark `code` and double asterisks **strong** words.
    """

    title: str
    anchor: str
    _blocks: list[str] = field(default_factory=list, repr=False)
    _figures: list[str] = field(default_factory=list, repr=False)  # plotly JSON, in order

    def text(self, *paragraphs: str) -> Section:
        """Add paragraphs."""
        self._blocks += [f"<p>{_inline(paragraph)}</p>" for paragraph in paragraphs]
        return self

    def heading(self, title: str) -> Section:
        """Add a smaller heading inside the section."""
        self._blocks.append(f"<h3>{_inline(title)}</h3>")
        return self

    def bullets(self, items: Iterable[str]) -> Section:
        """Add a list."""
        self._blocks.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        return self

    def image(self, source: Any, caption: str = "", alt: str = "") -> Section:
        """Add a picture: PNG, JPEG or SVG bytes, a file of these, or a matplotlib figure (drawn as PNG).

        Raises:
            TypeError, ValueError: `source` is none of these.
        """
        uri = _image_uri("Section.image", source)
        shown = html.escape(alt or caption, quote=True)
        self._blocks.append(
            f'<figure><div class="scroll"><img src="{uri}" alt="{shown}"></div>{_caption(caption)}</figure>'
        )
        return self

    def interactive(self, figure: Any, caption: str = "", height: int = 480) -> Section:
        """Add a plotly figure, `height` pixels high; it follows the page's light or dark colours.

        Raises:
            TypeError: `figure` is no plotly figure.
            ValueError: `height` is not a positive integer.
        """
        height = _check.integer("Section.interactive", "height", height, 1)
        data = _plotly_json("Section.interactive", figure)
        self._figures.append(data)
        self._blocks.append(
            f'<figure><div class="plot" style="height:{height}px" role="img" aria-label="{html.escape(caption, quote=True)}">'
            f'<script type="application/json">{data}</script></div>{_caption(caption)}</figure>'
        )
        return self

    def conclusion(self, text: str, verdict: str = "note") -> Section:
        """Add what the figure above shows; `verdict` is "helped", "mixed", "none", "hurt" or "note" and sets the colour."""
        _check.choice("Section.conclusion", "verdict", verdict, tuple(VERDICTS))
        self._blocks.append(f'<p class="conclusion {verdict}">{_inline(text)}</p>')
        return self

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Section:
        """Add a table; numbers, also written as text such as "1.2 ± 0.3", stand to the right.

        Raises:
            ValueError: A row has not as many cells as the header.
        """
        cells = []
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"Section.table: every row must have {len(header)} cells, got {len(row)}: {row!r}")
            cells.append([_cell(value) for value in row])
        sides = [' class="n"' if cells and all(row[i][1] for row in cells) else "" for i in range(len(header))]
        head = "".join(f"<th{side}>{_inline(name)}</th>" for name, side in zip(header, sides, strict=True))
        body = "".join(
            "<tr>" + "".join(f'<td class="n">{text}</td>' if n else f"<td>{text}</td>" for text, n in row) + "</tr>"
            for row in cells
        )
        title = f"<caption>{_inline(caption)}</caption>" if caption else ""
        self._blocks.append(
            f'<div class="table"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        return self

    def _html(self, number: int) -> str:
        body = "\n".join(self._blocks)
        return f'<section id="{self.anchor}"><h2><span>{number}</span> {_inline(self.title)}</h2>\n{body}\n</section>'


def _caption(caption: str) -> str:
    return f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""


class Report:
    """One self-contained HTML page: a title, a summary, sections with text, figures, conclusions and tables.

    The page loads nothing from anywhere: images are data URIs, and plotly.js stands inside it, once, if a
    section has an interactive figure. It is readable on a phone, in light and dark mode, and on paper.

    Args:
        title: Heading of the page.
        subtitle: A sentence below it.

    Raises:
        TypeError: `title` or `subtitle` is no text.

    Example:
        >>> import thalweg.report
        >>> page = thalweg.report.Report("Two runs", subtitle="Which one was better?")
        >>> section = page.section("Loss")
        >>> _ = section.text("Lower is better.").table(["run", "loss"], [["a", 0.21], ["b", 0.19]])
        >>> _ = section.conclusion("Run b ends lower by 0.02.", "helped")
        >>> "<td>a</td>" in page.to_html()
        True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        for name, value in (("title", title), ("subtitle", subtitle)):
            _check.instance("Report", name, value, str, "a string")
        self.title, self.subtitle = title, subtitle
        self.sections: list[Section] = []
        self._summary: list[tuple[str, str]] = []
        self._lead: list[str] = []

    def lead(self, *paragraphs: str) -> Report:
        """Add paragraphs above the summary."""
        self._lead += paragraphs
        return self

    def summary(self, items: Iterable[tuple[str, str]]) -> Report:
        """Add lines (verdict, text) to the list at the top; a verdict is "helped", "mixed", "none", "hurt" or "note"."""
        for verdict, text in items:
            _check.choice("Report.summary", "verdict", verdict, tuple(VERDICTS))
            self._summary.append((verdict, text))
        return self

    def section(self, title: str) -> Section:
        """Begin a section and return it."""
        taken = {section.anchor for section in self.sections}
        anchor = base = _slug(title)
        count = 2
        while anchor in taken:
            anchor, count = f"{base}-{count}", count + 1
        section = Section(title, anchor)
        self.sections.append(section)
        return section

    def to_html(self) -> str:
        """Return the whole page."""
        interactive = any(section._figures for section in self.sections)
        scripts = ""
        if interactive:
            library = require("plotly.offline", "an interactive report").get_plotlyjs()
            scripts = f"<script>{library}</script>\n<script>{_asset('report.js')}</script>\n"
        contents = "".join(
            f'<li><a href="#{section.anchor}">{_inline(section.title)}</a></li>' for section in self.sections
        )
        summary = "".join(
            f'<li class="{verdict}"><b>{VERDICTS[verdict]}</b><span>{_inline(text)}</span></li>'
            for verdict, text in self._summary
        )
        body = "\n".join(section._html(number) for number, section in enumerate(self.sections, 1))
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{_asset('report.css')}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{_inline(self.title)}</h1>"
            + (f'<p class="subtitle">{_inline(self.subtitle)}</p>' if self.subtitle else "")
            + "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in self._lead)
            + "</header>\n"
            + (f'<ul class="summary">{summary}</ul>\n' if summary else "")
            + (f"<nav><h2>Contents</h2><ol>{contents}</ol></nav>\n" if contents else "")
            + f"{body}\n</main>\n{scripts}</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to `path`, which is replaced in one go, and return the path.

        Raises:
            OSError: The file cannot be written; then nothing was changed.
        """
        target = Path(path)
        text = self.to_html()
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        return target


def _asset(name: str) -> str:
    return (Path(__file__).parent / "_assets" / name).read_text(encoding="utf-8")
