"""What `tuner replay` does: run a trial again, compare, and say what is not as it was."""

import contextlib

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.again import Recorded, Rerun, pick, read_trials, run_again
from tuner.errors import Different
from tuner.flags import Given
from tuner.sameness import Compared, Sameness, compare, excerpt, reasons
from tuner.settings import resolve_storage
from tuner.storage import open_database
from tuner.study import Snapshot

# Rows of the table, the final value's among them: more are not read.
MOST_ROWS = 8


def replay_trial(given: Given, console: Console) -> None:
    """Run a trial again, and print whether it gave the same.

    Raises:
        Different: it did not.
        TunerError: it could not be run, or failed.
    """
    study, number = given.values["study"], given.values["trial"]
    address = resolve_storage(given.values["storage"])
    with contextlib.closing(open_database(address, read_only=True)) as database:
        recorded = pick(read_trials(database, study), study, number)
    with run_again(recorded, given, console) as again:
        compared = compare(recorded.trial, again.trial)
        _tell(recorded, again, compared, console)
    if compared.sameness is Sameness.DIFFERENT:
        raise Different(f"{recorded.title} does not give the same again.")


def _tell(recorded: Recorded, again: Rerun, compared: Compared, console: Console) -> None:
    console.print()
    console.print(_table(compared, recorded.stored.snapshot))
    console.print()
    reported = sum(it.step is not None for it in compared.pairs)
    count = wording.count(reported, "reported value")
    color = "bold green" if compared.sameness is not Sameness.DIFFERENT else "bold red"
    sentence = f"{recorded.title} is {compared.sameness} ({count}, the final one"
    sentence += f"{_weights(recorded, again)})."
    console.print(Text(sentence, style=color))
    if compared.sameness in {Sameness.BIT_FOR_BIT, Sameness.VALUES}:
        return
    found = reasons(
        (recorded.trial.user_attrs, recorded.environment),
        (again.trial.user_attrs, again.environment),
    )
    for reason in found:
        console.print(Text(f"  {reason}"))
    if not found:
        console.print(
            "Nothing that is recorded differs: the objective itself may be random, such as with "
            "threads of its own, on a GPU, or with randomness that is not from the trial's seed."
        )


def _weights(recorded: Recorded, again: Rerun) -> str:
    """The weights that both ended with, or the two that differ; "" where a run does not say."""
    then, now = (
        str(it.trial.user_attrs.get("weights_hash") or "")[:12] for it in (recorded, again)
    )
    if not then or not now:
        return ""
    return f", weights {then}" if then == now else f", weights {then} then and {now} now"


def _table(compared: Compared, snapshot: Snapshot | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("at", "recorded", "now", "difference"):
        table.add_column(head, justify="left" if head == "at" else "right", no_wrap=True)
    ends = iter(snapshot.metrics if snapshot and snapshot.more_objectives else ())
    for pair in excerpt(compared.pairs, MOST_ROWS):
        at = "the end"
        if pair.step is None and (metric := next(ends, None)):
            at = f"the end, {metric}"
        if pair.step is not None:
            limits = (snapshot.max_step, snapshot.steps_per_epoch) if snapshot else (None, None)
            at = wording.progress_of(pair.step, *limits)
        cells = ["–" if it is None else f"{it:.6g}" for it in (pair.recorded, pair.now)]
        gap = "none" if pair.gap == 0 else "–"
        if pair.gap and pair.recorded is not None and pair.now is not None:
            gap = f"{pair.now - pair.recorded:+.3g}"
        table.add_row(at, *cells, gap)
    return table
