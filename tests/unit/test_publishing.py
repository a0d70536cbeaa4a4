"""A study's page in optuna-dashboard: the note, the best trials, what their model gets wrong."""

import base64
import json
import logging
import re
import struct
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly import graph_objects as go
from rich.console import Console

from tests.samples import OURS, in_memory, mnist_like
from tuner.report.cards import Blank, CannotDraw, Card, Chapter, Cover, Report, Section
from tuner.report.compose import mistake_cards
from tuner.report.material import Material
from tuner.report.mistakes import MOST_BYTES, BadMistakes, parsed
from tuner.report.page import render
from tuner.report.plots.confusion import confusion
from tuner.report.plots.leaders import MOST_LEADERS, leaders
from tuner.report.plots.worst import caption, worst
from tuner.report.publishing import _LAST_LINE, BEGIN, END, _model_change, note, renewed
from tuner.report.results import COMPLETE
from tuner.report.upkeep import keep_up

HOSTILE = "</script><b>x"


def picture(width: int = 28, height: int = 28) -> str:
    """A grey PNG in base64."""
    rows = b"".join(b"\0" + bytes(width) for _ in range(height))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def content(count: int = 10, many: int = 30, **changes: Any) -> dict[str, Any]:
    """A file of mistakes: 100 images of each class right, class 0 taken for 1 most often."""
    confusion = np.eye(count, dtype=int) * 100
    for number in range(many):
        row = number % (count - 1)
        confusion[row, row + 1] += 1
    confusion[0, 1] += 5
    names = [str(it) for it in range(count)]
    worst = [
        {"index": it, "true": "0", "said": "1", "p_said": 0.999 - 0.01 * it, "p_true": 0.0005,
         "png": picture()}
        for it in range(min(24, many))
    ]  # fmt: skip
    return {
        "images": int(confusion.sum()), "wrong": many + 5, "n_classes": count,
        "classes": names, "confusion": confusion.tolist(), "worst": worst, **changes,
    }  # fmt: skip


def file_of(**changes: Any) -> bytes:
    return json.dumps(content(**changes)).encode()


# --- the file ------------------------------------------------------------------------------------


def test_a_file_is_read_whole() -> None:
    found = parsed(file_of())
    assert (found.images, found.wrong, found.n_classes) == (1035, 35, 10)
    assert found.confusion.sum() == 1035
    assert found.worst[0].uri == f"data:image/png;base64,{picture()}"
    assert caption(found.worst[0]) == "0 read as 1, > 99 %"
    assert caption(found.worst[5]) == "0 read as 1, 95 %"


def _worst(**changes: Any) -> bytes:
    one = content()["worst"][0] | changes
    return file_of(worst=[one])


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (file_of()[:-40], "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (MOST_BYTES + 1), "bytes, more than"),
        (b"[]", "list indices"),
        (b"{}", "images is missing"),
        (file_of(images=10**30), "images has something"),
        (file_of(images=True), "images has something"),
        (file_of(wrong=-1), "wrong has something"),
        (file_of(wrong=34), "add up"),
        (file_of(images=1036), "add up"),
        (file_of(classes=["0"] * 10), "one twice"),
        (file_of(classes=[]), "names none"),
        (file_of(classes=[0] * 10), "no text"),
        (file_of(classes=[str(it) for it in range(51)]), "at most 50"),
        (file_of(confusion=[[1]]), "10 rows"),
        (file_of(confusion=[[0.5] * 10] * 10), "confusion has something"),
        (file_of(worst="no"), "no list"),
        (_worst(p_said=float("nan")), "0 to 1"),
        (_worst(p_true=2), "0 to 1"),
        (_worst(p_said="1"), "no number"),
        (_worst(png="javascript:alert(1)"), "no base64"),
        (_worst(png=base64.b64encode(b"<svg onload=x>" * 3).decode()), "no PNG"),
        (_worst(png=picture(513, 2)), "larger than 512"),
        (_worst(png="A" * 200_000), "more than 100,000"),
        (_worst(index=-1), "index has something"),
        (_worst(true=None), "no text"),
    ],
)
def test_a_damaged_or_hostile_file_is_told_in_words(damaged: bytes, why: str) -> None:
    with pytest.raises(BadMistakes, match=re.escape(why)):
        parsed(damaged)


# --- the figures ---------------------------------------------------------------------------------


def test_a_confusion_matrix_counts_and_names_the_most_frequent() -> None:
    card = confusion(parsed(file_of()), 43)
    assert card.title == (
        "35 of 1,035 validation images are wrong, most often 0 taken for 1: 9 times"
    )
    assert "Trial 43" in card.basis
    right, errors = card.figure.data
    shown = np.array(content()["confusion"])
    texts = [[a or b for a, b in zip(*rows, strict=True)]
             for rows in zip(right.text, errors.text, strict=True)]  # fmt: skip
    assert [[int(it or 0) for it in row] for row in texts] == shown.tolist()
    colours = np.array(errors.z, dtype=float)
    assert np.nanargmax(colours) == 1  # not the diagonal
    assert np.isnan(np.diag(colours)).all()
    assert card.table["images"].sum() == 35
    assert card.table.iloc[0].tolist() == ["0", "1", 9, 109]
    assert "0 taken for 1 9 times" in card.alt
    many = confusion(parsed(file_of(count=40)), 0)
    assert not many.figure.data[1].texttemplate
    assert many.figure.layout.height <= 520
    some = confusion(parsed(file_of(n_classes=200)), 0)
    assert "Of 200 classes the 10" in some.basis
    none = content(many=0, confusion=(np.eye(10, dtype=int) * 100).tolist(), images=1000)
    perfect = parsed(json.dumps(none | {"wrong": 0}).encode())
    assert confusion(perfect, 0).title == "All 1,000 validation images are named rightly"
    with pytest.raises(CannotDraw, match="names all 1,000 validation images rightly"):
        worst(perfect, 0)


def test_the_worst_images_stand_in_a_grid_each_with_its_words() -> None:
    card = worst(parsed(file_of()), 43)
    assert (
        card.title
        == "10 of the 35 mistakes are made with 90 % or more, the surest: 0 read as 1, > 99 %"
    )
    layout = card.figure.layout
    assert len(layout.images) == len(layout.annotations) == len(card.table) == 24
    assert layout.annotations[5].text == "0 read as 1<br>95 %"
    assert all(it.source.startswith("data:image/png;base64,") for it in layout.images)
    places = {(it.x, it.y) for it in layout.images}
    assert len(places) == 24
    assert max(x for x, _ in places) < layout.xaxis.range[1]
    assert max(y for _, y in places) < layout.yaxis.range[0]
    moved = {(card.narrow[f"images[{it}].x"], card.narrow[f"images[{it}].y"]) for it in range(24)}
    assert len(moved) == 24
    assert max(x for x, _ in moved) < card.narrow["xaxis.range"][1]


def test_names_of_classes_are_no_html() -> None:
    changed = content()
    changed["classes"][0] = HOSTILE
    changed["worst"][0]["true"] = HOSTILE
    results = in_memory(mnist_like(20), attrs=OURS)
    material = Material(results, mistakes=parsed(json.dumps(changed).encode()))
    cards = mistake_cards(material)
    assert [type(it) for it in cards] == [Card, Card]
    for card in cards:
        assert isinstance(card, Card)
        assert HOSTILE not in card.figure.to_json()
    section = Section("mistakes", "Mistakes", "Mistakes", cards=cards)
    page = render(Report("x", [Chapter("mnist", "mnist", Cover("", "", ""), [section])]))
    assert HOSTILE not in page
    assert "&lt;/script&gt;&lt;b&gt;x" in page


def test_a_file_that_is_not_there_is_told_in_its_place() -> None:
    results = in_memory(mnist_like(20), attrs=OURS)
    assert mistake_cards(Material(results)) == []
    [blank] = mistake_cards(Material(results, mistakes="The file is not in the store."))
    assert blank == Blank("confusion", "Confusion matrix", "The file is not in the store.")


def test_the_best_trials_stand_before_the_others() -> None:
    results = in_memory(mnist_like(100), attrs=OURS)
    card = leaders(results)
    complete = results.trials[results.trials["outcome"] == COMPLETE]["value"].nsmallest(
        MOST_LEADERS
    )
    best = int(complete.index[0])
    assert card.title.startswith(f"Trial {best} ends best, {100 * complete.iloc[0]:.2f} %")
    names = [trace.name for trace in card.figure.data]
    assert names[0] == "others"
    assert len(names) == 1 + MOST_LEADERS
    assert names[-1].startswith(f"trial {best}, ")
    curve = results.steps[results.steps["number"] == best]["value"]
    np.testing.assert_allclose(np.array(card.figure.data[-1].y)[:-1], curve, rtol=1e-6)
    assert len(card.table) == 7
    assert len(card.figure.to_json()) < 60_000
    with pytest.raises(CannotDraw):
        leaders(in_memory([], attrs=OURS))


def test_where_the_lead_begins_is_told_as_it_was() -> None:
    trials = [it for it in mnist_like(60, states=False) if it.state.name == "COMPLETE"][:3]
    for place, trial in enumerate(trials):
        steps = (1, 4, 8, 20)
        curves = ([0.3, 0.2, 0.1, 0.05], [0.2, 0.3, 0.2, 0.06], [0.4, 0.3, 0.3, 0.07])
        trial.intermediate_values = dict(zip(steps, curves[place], strict=True))
        trial.value = curves[place][-1]
    title = leaders(in_memory(trials, attrs=OURS)).title
    assert title == "Trial 0 ends best, 5.0 %, ahead of the next 2 from epoch 1 on"
    assert leaders(in_memory(trials[:1], attrs=OURS)).title == (
        "Trial 0 is the only one with a curve that ran to the end: 5.0 %"
    )


# --- the note ------------------------------------------------------------------------------------


def test_the_note_says_what_is_searched_and_what_was_best() -> None:
    results = in_memory(mnist_like(40), attrs=OURS)
    text = note(Material(results))
    assert text.startswith("## ")
    assert f"**Best: validation error {100 * results.trials['value'][results.best]:.2f} %" in text
    assert f"trial {results.best}**" in text
    assert "| learning\\_rate | 0.0001 to 1, log | " in text
    assert "| frozen\\_layers | whole, 0 to 4 | " in text
    assert "sgd, momentum, nesterov" in text
    assert "`python -m tuner.run --study mnist --trials 100 --seed 1 --precision float32`" in text
    assert "| Optimizer | " in text
    empty = note(Material(in_memory([], attrs=OURS)))
    assert empty.startswith("## No trial has run to its end yet")
    marked = note(Material(in_memory(mnist_like(5), name=END, attrs=OURS)))
    assert END not in marked
    odd = note(Material(in_memory(mnist_like(5), name="a`b``|<b>\n", attrs=OURS)))
    assert "<b>" not in odd.replace("```", "").split("The same search again:")[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "{ours}"),
        ("  \n", "{ours}"),
        ("mine", "mine\n\n{ours}"),
        (f"mine\n\n{BEGIN}\n\nold\n\n{END}\n\nand mine", "mine\n\n{ours}\n\nand mine"),
        (f"mine {BEGIN} cut", "mine  cut\n\n{ours}"),
        (f"mine\n\n{BEGIN}\n\nold\n\n{_LAST_LINE}\n\nand mine", "mine\n\n{ours}\n\nand mine"),
        (
            f"{BEGIN}\n\nold\n\nmine\n\n{BEGIN}\n\nold\n\n{END}\n\nand mine",
            "\n\nold\n\nmine\n\n{ours}\n\nand mine",
        ),
        (f"mine\n\n{END}", f"mine\n\n{END}\n\n{{ours}}"),
    ],
)
def test_what_people_wrote_into_the_note_stays(before: str, after: str) -> None:
    wanted = after.replace("{ours}", f"{BEGIN}\n\nnew\n\n{END}")
    assert renewed(before, "new") == wanted
    assert renewed(wanted, "new") == wanted  # again: nothing changes


def test_only_our_own_link_to_a_model_is_replaced() -> None:
    theirs = f"artifacts:{uuid.uuid4()}"
    old, new = (f"artifacts:0123456789ab-{uuid.uuid4()}" for _ in range(2))
    there = {old: "old", theirs: "theirs", "artifacts:x": "{}"}
    assert _model_change(there, {new: "new", theirs: "no"}) == {old: None, new: "new"}
    assert _model_change(there, {}) == {old: None}
    assert _model_change({new: "new"}, {new: "new"}) == {new: "new"}


def test_a_page_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tuner"), "propagate", True)  # a command turns it off
    keep_up("mnist", f"sqlite:///{tmp_path}/none.db", str(tmp_path), Console(quiet=True))
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "none.db" in record.getMessage()
    assert "\n" not in record.getMessage()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuner.report.publishing.publish_study", stopped)
    keep_up("mnist", "sqlite:///x.db", str(tmp_path), Console(quiet=True))
    assert "(interrupted)" in caplog.records[-1].getMessage()


def test_figures_fit_the_dashboards_panels() -> None:
    from tuner.report.publishing import HEIGHT, _figure_json, _telling

    material = Material(in_memory(mnist_like(60), attrs=OURS), mistakes=parsed(file_of()))
    cards = [it for it in _telling(material) if isinstance(it, Card)]
    assert [it.key.partition("-")[0] for it in cards] == [
        "history", "leaders", "confusion", "worst", "forest", "expected",
    ]  # fmt: skip
    for card in cards:
        figure = go.Figure(json.loads(_figure_json(card)))
        assert figure.layout.height == HEIGHT
        assert figure.layout.title.text
