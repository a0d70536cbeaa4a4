"""Where a report goes: the page, tables, pictures, the dashboard."""

import contextlib
import importlib.util
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from plotly import graph_objects as go
from plotly import io as plotly_io

from tuner import wording
from tuner.errors import UsageError
from tuner.report.cards import Card, Report
from tuner.report.compose import compose
from tuner.report.figures import titled
from tuner.report.material import Material
from tuner.report.page import render
from tuner.report.publishing import publish
from tuner.report.reading import read_materials
from tuner.report.results import Results
from tuner.storage import open_database

_log = logging.getLogger(__name__)

# Of a picture: as wide as half a page on a large screen, in pixels, each drawn this often.
PNG_WIDTH, PNG_SCALE = 900, 2
_LONGEST_NAME = 160  # bytes of what names make of a file's name; file systems take 255


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    Attributes:
        page: the HTML file; None for ``report-NAME.html`` in this directory.
        csv, png: folders, or None.
        publish: whether the dashboard gets the verdict.
        artifacts: the artifact store with files of the best trials, or None to do without.
    """

    page: Path | None
    csv: Path | None
    png: Path | None
    publish: bool
    artifacts: str | None = None


def write(studies: Sequence[str], storage: str, outputs: Outputs) -> Iterator[str]:
    """Make the report; yields a sentence for the user about each thing that was written.

    Raises:
        UsageError: there is no such study, or a file cannot be written.
        StorageError: the database cannot be used.
    """
    page = outputs.page or Path(_file_name(studies))
    _check(page, outputs)
    with contextlib.closing(
        open_database(storage, create=False, read_only=not outputs.publish)
    ) as database:
        materials = read_materials(database, studies, outputs.artifacts)
        report = compose(materials)
        with _writing(page):
            _replace(page, render(report).encode(errors="replace"))
        size = wording.size(page.stat().st_size)
        yield f"{report.chapters[0].cover.headline}."
        yield f"The report is in {page} ({size}); open it in a browser."
        if outputs.csv is not None:
            yield _write_tables(materials, report, outputs.csv)
        if outputs.publish:
            for material in materials:
                yield publish(database, material)
    if outputs.png is not None:
        yield _write_pictures(report, outputs.png)


def _file_name(studies: Sequence[str]) -> str:
    """Of a page: study names may hold anything, and names of files may not be long."""
    names = "-".join(_safe(name) for name in studies).encode()[:_LONGEST_NAME]
    return f"report-{names.decode(errors='ignore')}.html"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "study"


def _check(page: Path, outputs: Outputs) -> None:
    """Before the work is done rather than after it."""
    with _writing(page):
        if page.is_dir():
            raise UsageError(f"--out is {page}, and that is a folder; name a file.")
        if not page.absolute().parent.is_dir():
            raise UsageError(f"--out is {page}, and there is no folder {page.parent}; make it.")
        if not (page.exists() or os.access(page.absolute().parent, os.W_OK)):
            raise UsageError(f"--out is {page}, and nothing can be written into {page.parent}.")
    for flag, folder in (("--csv", outputs.csv), ("--png", outputs.png)):
        if folder is None:
            continue
        with _writing(folder):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{flag} is {folder}, and that is a file; name a folder.")
    if outputs.png is not None and importlib.util.find_spec("kaleido") is None:
        raise UsageError(
            "--png needs the package kaleido; install it with: pip install 'tuner[png]'"
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all; the name may be a link, a pipe or a device."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".report-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else _mode())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _mode() -> int:
    """Of a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _cards(report: Report) -> Iterator[tuple[str, Card]]:
    """Each card with a figure, and a name for its files that no other has."""
    several = len(report.chapters) > 1
    for place, chapter in enumerate(report.chapters):
        prefix = f"{place}-{_safe(chapter.key)[: _LONGEST_NAME // 4]}-" if several else ""
        for section in chapter.sections:
            for card in section.cards:
                if isinstance(card, Card):
                    yield f"{prefix}{card.key}", card


def _write_tables(materials: Sequence[Material], report: Report, folder: Path) -> str:
    """The frames of each study, and the data of each figure."""
    tables: dict[str, pd.DataFrame] = {}
    for place, material in enumerate(materials, 1):
        name = _safe(material.results.study)[: _LONGEST_NAME // 4]
        prefix = f"{place}-{name}-" if len(materials) > 1 else ""
        tables |= {f"{prefix}{key}": frame for key, frame in frames(material.results).items()}
    for key, card in _cards(report):
        chapter, dash, rest = key.partition("-") if len(materials) > 1 else ("", "", key)
        tables[f"{chapter}{dash}figure-{rest}"] = card.table
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for key, frame in tables.items():
            named = frame.index.name is not None
            _replace(folder / f"{key}.csv", frame.to_csv(index=named).encode(errors="replace"))
    return f"Wrote {wording.count(len(tables), 'table')} into {folder}."


def frames(results: Results) -> dict[str, pd.DataFrame]:
    """A study in full: its trials with their parameters and attributes, and what they reported."""
    trials = results.trials.drop(columns=["value"]).join(
        results.values.rename(columns=lambda place: "value" if place == 0 else f"value_{place + 1}")
    )
    trials = trials.join(results.params.add_prefix("param_")).join(
        results.attrs.add_prefix("attr_")
    )
    return {"trials": trials, "steps": results.steps.set_index("number")}


def _write_pictures(report: Report, folder: Path) -> str:
    cards = dict(_cards(report))
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _draw([titled(it) for it in cards.values()], [folder / f"{key}.png" for key in cards])
    return f"Wrote {wording.count(len(cards), 'picture')} into {folder}."


def _draw(figures: list[go.Figure], files: list[Path]) -> None:
    """Let Plotly draw them in a browser that nobody sees."""
    try:
        plotly_io.write_images(
            figures, [str(file) for file in files], width=PNG_WIDTH, scale=PNG_SCALE
        )
    except (RuntimeError, ValueError) as error:
        _log.debug("kaleido failed", exc_info=True)
        raise UsageError(
            "--png draws with a browser, and none could be started; install chromium (apt-get "
            "install chromium) or Chrome, or set BROWSER_PATH to one. The page itself is written."
        ) from error
