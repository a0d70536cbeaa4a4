"""What `tuner confirm` does: run configurations on fresh seeds, and print the verdict.

A confirmation is an ordinary study, run as any other: its arms are the configurations, its blocks
the seeds, see `tuner.design`. The search keeps a list of the openings of its test set.
"""

import contextlib
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import environment, wording
from tuner.confirm_plan import Plan, plan_of, precision_of, read_search
from tuner.design import confirmation
from tuner.errors import UsageError
from tuner.flags import Given
from tuner.launch import Enrolled, bring_to_target
from tuner.report.outcome import SEEDS_FOR_SPREAD, as_table, outcome_of, progress_note
from tuner.report.results import Results, results_of
from tuner.report.scale import scale_of
from tuner.report.statistics.power import binomial_deviation, smallest_difference
from tuner.report.upkeep import keep_up
from tuner.scoreboard import Scoreboard
from tuner.settings import RunSettings, resolve_confirm, resolve_storage
from tuner.storage import (
    Address,
    Database,
    address_of,
    find_study,
    open_database,
    read_contents,
    record_opening,
    register,
)
from tuner.storage.attributes import ASKED_ATTR, CONFIGURATIONS_ATTR, CONFIRMS_ATTR
from tuner.study import Snapshot, find_again


def confirm_study(given: Given, console: Console) -> None:
    """Run a confirmation to its end, and print what it says.

    Raises:
        TunerError: anything that ends the command before that, with its exit code.
    """
    values = given.values
    # The study's code may change the directory.
    address = address_of(resolve_storage(values["storage"]))
    with contextlib.closing(open_database(address, read_only=True)) as database:
        search = read_search(database, values["study"])
        plan = plan_of(database, search, given, console)
    settings = None
    if plan.missing:
        settings = resolve_confirm(
            given,
            study=plan.name,
            study_file=find_again(search.snapshot.file),
            trials=plan.runs,
            seed=plan.seed,
            precision=precision_of(search),
        )
        bring_to_target(
            settings,
            console,
            lambda database, snapshot: _enrol(plan, settings, console, database, snapshot),
            _Spread(address, plan),
        )
    with contextlib.closing(open_database(address, read_only=True)) as database:
        source = None
        with contextlib.suppress(UsageError):  # somebody deleted it meanwhile
            source = _results(database, search.name)
        outcome = outcome_of(_results(database, plan.name), source)
    console.print()
    console.print(as_table(outcome))
    places = given.again("storage", "artifacts")
    console.print()
    for command in ("report", "export"):
        out = ["--out", f"{search.name}-model"] if command == "export" else []
        words = ["python", "-m", f"tuner.{command}", "--study", search.name, *out, *places]
        console.print(Text(shlex.join(words), style="bold"), soft_wrap=True)
    if settings is not None and source is not None and not settings.no_publish:
        keep_up(search.name, address, settings.artifacts, console)


def _results(database: Database, name: str) -> Results:
    return results_of(read_contents(database, find_study(database, name)))


def _enrol(
    plan: Plan, settings: RunSettings, console: Console, database: Database, snapshot: Snapshot
) -> Enrolled:
    """Register the confirmation, and note in the search that its test set is opened."""
    search = plan.search
    snapshot.require_same(search.snapshot, search.name)
    record = register(
        database,
        plan.name,
        snapshot,
        seed=settings.seed,
        search=settings.search,
        attrs={
            CONFIRMS_ATTR: search.name,
            CONFIGURATIONS_ATTR: plan.configurations,
            ASKED_ATTR: plan.asked,
        },
    )
    if snapshot.file_hash != search.snapshot.file_hash:
        record.warnings.append(
            f"{snapshot.file} changed since {search.name} was run; check that it still trains the "
            "same way."
        )
    if "test" in snapshot.offers:
        opening = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": environment.describe()["commit"],
            "study": plan.name,
            "id": record.uid,
            "configurations": len(plan.configurations),
            "seeds": plan.seeds,
        }
        record_opening(database, find_study(database, search.name), opening)
    _announce(plan, settings, console, snapshot)
    how = f"{_times(plan)}, unpruned, seed {record.seed}"
    return Enrolled(record, confirmation(plan.configurations), how)


def _times(plan: Plan) -> str:
    count = wording.count(len(plan.configurations), "configuration")
    return f"{count} on {wording.count(plan.seeds, 'shared seed')}"


def _announce(plan: Plan, settings: RunSettings, console: Console, snapshot: Snapshot) -> None:
    """Say what is about to be spent, and what that can show."""
    search = plan.search
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for number, candidate in enumerate(plan.chosen, 1):
        at = ""
        if candidate.pruned_at is not None:
            place = wording.progress_of(
                candidate.pruned_at, snapshot.max_step, snapshot.steps_per_epoch
            )
            at = f", pruned at {place}: no trial of its level ran to the end"
        value = f"{snapshot.metric} {wording.number(candidate.value)}"
        params = wording.params(candidate.params)
        table.add_row(str(number), f"{params} ({value}, trial {candidate.number}{at})")
    console.print(table)
    if "test" in snapshot.offers:
        before = [it for it in search.stored.openings if it.get("study") != plan.name]
        again = f", opened {wording.times(len(before))} before" if before else ""
        console.print(f"After each run it is measured on the test set{again}.")
    else:
        console.print(
            f"{snapshot.file} has no test(): the runs are compared by {snapshot.metric}, on the "
            "data that chose them."
        )
    values = [it.value for it in plan.chosen if it.pruned_at is None]
    best = (max if search.maximize else min)(values, default=None)
    said = _resolution(plan, snapshot, best)
    if said:
        console.print(said)
    console.print(_cost(plan, settings))


def _resolution(plan: Plan, snapshot: Snapshot, best: float | None) -> str:
    """The smallest difference that so many seeds can show, where errors are shares of images."""
    arms, images = len(plan.configurations), snapshot.test_images
    values = [it.value for it in plan.search.trials if it.value is not None]
    scale = scale_of(snapshot.metric, snapshot.direction, values)
    if best is None or images is None or arms < 2 or not scale.share:
        return ""
    error = float(scale.shown(best))
    pairs = arms * (arms - 1) // 2
    found = smallest_difference(binomial_deviation(error, images), plan.seeds, pairs)
    return (
        f"{plan.seeds} seeds find a difference of {100 * found:.2g} points with a power of 80 %, "
        f"if runs differ by no more than the luck of {images:,} images at an error of "
        f"{error:.2%}; after {SEEDS_FOR_SPREAD} seeds it is told by their own spread."
    )


def _cost(plan: Plan, settings: RunSettings) -> str:
    seconds = [
        trial.duration.total_seconds()
        for trial in plan.search.trials
        if trial.state == TrialState.COMPLETE and trial.duration is not None
    ]
    runs = f"{wording.count(plan.runs, 'run')} to the end"
    if not seconds:
        return f"{runs}; how long that takes is not known yet."
    workers = max(1, settings.workers)
    time = wording.duration(plan.runs * fmean(seconds) / workers)
    by = wording.count(workers, "worker")
    return f"{runs}, about {time} with {by}: such trials of the search took {fmean(seconds):.3g} s."


@dataclass
class _Spread:
    """After three seeds: what difference all of them can show, by the spread that was measured."""

    address: Address
    plan: Plan
    _told: bool = False

    def __call__(self, board: Scoreboard) -> str | None:
        arms = len(self.plan.configurations)
        few = SEEDS_FOR_SPREAD * arms
        if self._told or not few <= board.ended < board.target or arms < 2:
            return None
        with contextlib.closing(open_database(self.address, read_only=True)) as database:
            results = _results(database, self.plan.name)
        note = progress_note(results, self.plan.seeds)
        self._told = note is not None
        return note
