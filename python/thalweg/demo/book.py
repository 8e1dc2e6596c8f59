"""Book: saves figures, puts them into the report, collects the conclusions. Knows nothing of what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..report import Section
from .words import Conclusion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PER_FIGURE = 0.9  # seconds, for the progress bar's estimate


class Book:
    """Saves figures as PNG files, puts them into the report, and keeps all conclusions for results.json."""

    def __init__(self, folder: Path, done: Callable[[float], None]) -> None:
        self.folder, self.done = folder, done
        self.conclusions: list[dict[str, str]] = []
        self.timed: list[dict[str, str]] = []

    def picture(self, section: Section, name: str, figure: Figure, caption: str) -> None:
        """Save `figure` as name.png and show it."""
        path = self.folder / f"{name}.png"
        figure.savefig(path, dpi=130, metadata={"Software": None})
        section.image(path, caption)
        self.done(_PER_FIGURE)

    def conclude(self, section: Section, found: Iterable[Conclusion], timed: bool = False) -> None:
        """Add conclusions below the last figure; timed ones are kept apart, as they differ from run to run."""
        for conclusion in found:
            section.conclusion(conclusion.text, conclusion.verdict)
            entry = {"section": section.anchor, "verdict": conclusion.verdict, "text": conclusion.text}
            (self.timed if timed else self.conclusions).append(entry)
