"""Where a report goes: the page, tables, pictures, the dashboard."""

import contextlib
import logging
import os
import re
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


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    Attributes:
        page: the HTML file; None for ``report-NAME.html`` in this directory.
        csv, png: folders, or None.
        publish: whether the dashboard gets the verdict.
    """

    page: Path | None
    csv: Path | None
    png: Path | None
    publish: bool


def write(studies: Sequence[str], storage: str, outputs: Outputs) -> Iterator[str]:
    """Make the report; yields a sentence for the user about each thing that was written.

    Raises:
        UsageError: there is no such study, or a file cannot be written.
        StorageError: the database cannot be used.
    """
    page = outputs.page or Path(_file_name(studies))
    _check_writable(page)
    with contextlib.closing(
        open_database(storage, create=False, read_only=not outputs.publish)
    ) as database:
        materials = read_materials(database, studies)
        report = compose(materials)
        with _writing(page):
            _replace(page, render(report).encode())
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
    """Of a page: study names may hold anything."""
    names = "-".join(re.sub(r"[^\w.-]+", "_", name).strip(".") or "study" for name in studies)
    return f"report-{names[:100]}.html"


def _check_writable(page: Path) -> None:
    """Before the work is done rather than after it."""
    if page.is_dir():
        raise UsageError(f"--out is {page}, and that is a folder; name a file.")
    if not page.absolute().parent.is_dir():
        raise UsageError(f"--out is {page}, and there is no folder {page.parent}; make it first.")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all; the name may be a link, or a device."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(content)
        return
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_tables(materials: Sequence[Material], report: Report, folder: Path) -> str:
    """The frames of each study, and the data of each figure."""
    tables: dict[str, pd.DataFrame] = {}
    for material in materials:
        prefix = "" if len(materials) == 1 else f"{_safe(material.results.study)}-"
        tables |= {f"{prefix}{key}": frame for key, frame in frames(material.results).items()}
    for chapter in report.chapters:
        prefix = "" if len(report.chapters) == 1 else f"{_safe(chapter.key)}-"
        for section in chapter.sections:
            for card in section.cards:
                if isinstance(card, Card):
                    tables[f"{prefix}figure-{card.key}"] = card.table
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for key, frame in tables.items():
            named = frame.index.name is not None
            _replace(folder / f"{key}.csv", frame.to_csv(index=named).encode())
    return f"{wording.count(len(tables), 'table')} are in {folder}."


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
    keys, figures = [], []
    for chapter in report.chapters:
        prefix = "" if len(report.chapters) == 1 else f"{_safe(chapter.key)}-"
        for section in chapter.sections:
            for card in section.cards:
                if isinstance(card, Card):
                    keys.append(f"{prefix}{card.key}")
                    figures.append(titled(card))
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _draw(figures, [folder / f"{key}.png" for key in keys])
    return f"{wording.count(len(figures), 'picture')} are in {folder}."


def _draw(figures: list[go.Figure], files: list[Path]) -> None:
    """Let Plotly draw them in a browser that nobody sees."""
    try:
        import kaleido  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "--png needs the package kaleido; install it with: pip install 'tuner[png]'"
        ) from error
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


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
