"""What `tuner confirm` does: choose configurations, run them on fresh seeds, and print the verdict.

A confirmation is an ordinary study, run as any other: its arms are the configurations, its blocks
the seeds, see `tuner.design`. The search keeps a list of the openings of its test set.
"""

import contextlib
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import candidates, environment, wording
from tuner.candidates import Candidate
from tuner.design import confirmation
from tuner.errors import UsageError
from tuner.flags import Given
from tuner.launch import Enrolled, bring_to_target
from tuner.levels import levels_of
from tuner.machine import AUTO
from tuner.report.outcome import SEEDS_FOR_SPREAD, as_table, outcome_of, progress_note
from tuner.report.results import Results, results_of
from tuner.report.statistics.power import binomial_deviation, smallest_difference
from tuner.scoreboard import Scoreboard
from tuner.seeds import confirmation_seed
from tuner.settings import RunSettings, resolve_confirm, resolve_storage
from tuner.storage import (
    Database,
    StoredAttributes,
    find_confirmations,
    find_study,
    open_database,
    read_contents,
    record_opening,
    register,
)
from tuner.storage.attributes import CONFIGURATIONS_ATTR, CONFIRMS_ATTR
from tuner.study import Snapshot, find_again

DEFAULT_TOP = 5


@dataclass(frozen=True)
class _Search:
    """The search that is to be confirmed.

    Attributes:
        snapshot: what its study file declared.
        seed: of the study.
        confirmations: those that there are, the latest first: name, what is stored, ended runs.
    """

    name: str
    stored: StoredAttributes
    snapshot: Snapshot
    seed: int
    trials: list[FrozenTrial]
    confirmations: list[tuple[str, StoredAttributes, int]]

    @property
    def maximize(self) -> bool:
        """Whether a greater value is better."""
        return self.snapshot.direction == "maximize"


@dataclass(frozen=True)
class _Plan:
    """A confirmation that is to be run, or to be gone on with.

    Attributes:
        name: the confirmation's.
        configurations: the parameters of each.
        chosen: where they come from; empty where an earlier command has chosen them.
        seeds: on how many they run.
        count: how many other confirmations the search has.
        ended: how many of its runs have ended.
    """

    search: _Search
    name: str
    configurations: list[dict[str, Any]]
    chosen: list[Candidate]
    seeds: int
    count: int
    ended: int = 0

    @property
    def runs(self) -> int:
        """How many it has in the end."""
        return len(self.configurations) * self.seeds

    @property
    def missing(self) -> bool:
        """Whether there is something to run."""
        return self.ended < self.runs


def confirm_study(given: Given, console: Console) -> None:
    """Run a confirmation to its end, and print what it says.

    Raises:
        TunerError: anything that ends the command before that, with its exit code.
    """
    values = given.values
    address = resolve_storage(values["storage"])
    with contextlib.closing(open_database(address, read_only=True)) as database:
        search = _read_search(database, values["study"])
    plan = _plan(search, given, console)
    settings = resolve_confirm(
        given,
        study=plan.name,
        study_file=find_again(search.snapshot.file),
        trials=plan.runs,
        seed=confirmation_seed(search.seed, plan.count),
        precision=_precision(search),
    )
    if plan.missing:
        bring_to_target(
            settings,
            console,
            lambda database, snapshot: _enrol(plan, settings, console, database, snapshot),
            _Spread(address, plan),
        )
    with contextlib.closing(open_database(address, read_only=True)) as database:
        outcome = outcome_of(_results(database, plan.name), _results(database, search.name))
        shown_url = database.url
    console.print()
    console.print(as_table(outcome))
    place = ["--storage", shown_url] if given.by_flag("storage") else []
    console.print()
    for command in ("report", "export"):
        out = ["--out", f"{search.name}-model"] if command == "export" else []
        words = ["python", "-m", f"tuner.{command}", "--study", search.name, *out, *place]
        console.print(Text(shlex.join(words), style="bold"), soft_wrap=True)


def _results(database: Database, name: str) -> Results:
    return results_of(read_contents(database, find_study(database, name)))


def _read_search(database: Database, name: str) -> _Search:
    study_id = find_study(database, name)
    contents = read_contents(database, study_id)
    stored = StoredAttributes.of(contents.user_attrs)
    if stored.confirms is not None:
        raise UsageError(
            f"{name} is itself a confirmation, of {stored.confirms}; confirm that one: "
            f"--study {stored.confirms}."
        )
    if stored.snapshot is None or stored.seed is None:
        raise UsageError(
            f"The study {name!r} was not made by `tuner run`, so the file that trains its "
            "configurations is not known; run them as a study of yours first."
        )
    confirmations = []
    for other in find_confirmations(database, name):
        found = read_contents(database, other)
        ended = sum(state in {"COMPLETE", "PRUNED"} for _, state, *_ in found.trials)
        confirmations.append((found.name, StoredAttributes.of(found.user_attrs), ended))
    trials = database.storage.get_all_trials(study_id, deepcopy=False)
    return _Search(name, stored, stored.snapshot, stored.seed, trials, confirmations)


def _plan(search: _Search, given: Given, console: Console) -> _Plan:
    """Go on with the latest confirmation if it is the same; else begin one, if that is allowed.

    Raises:
        UsageError: there is nothing to confirm, or there is another confirmation already.
    """
    seeds, again = given.values["seeds"], given.values["again"]
    chosen = _choose(search, given, console)
    configurations = [it.params for it in chosen]
    if search.confirmations and not again:
        count = len(search.confirmations) - 1
        name, latest, ended = search.confirmations[0]
        same_size = latest.target in {None, len(configurations) * seeds}
        if same_size and latest.configurations == configurations:
            return _Plan(search, name, configurations, chosen, seeds, count, ended)
        raise UsageError(_refusal(search, name, latest))
    count = len(search.confirmations)
    name = f"{search.name}-confirm" + (f"-{count + 1}" if count else "")
    return _Plan(search, name, configurations, chosen, seeds, count)


def _refusal(search: _Search, name: str, latest: StoredAttributes) -> str:
    runs = len(latest.configurations)
    target = latest.target or runs
    openings = search.stored.openings
    opened = f"The test set was opened {wording.times(len(openings))} for {search.name} already"
    why = f"{opened}, and each opening makes its error more hopeful" if openings else ""
    return (
        f"{search.name} has the confirmation {name}, of other configurations or seeds "
        f"({wording.count(runs, 'configuration')} on {wording.count(target // runs, 'seed')}). "
        f"{why + '; ' if why else ''}give the same --top or --per-level and --seeds to see it or "
        "to go on with it, or --again to make another."
    )


def _choose(search: _Search, given: Given, console: Console) -> list[Candidate]:
    top, factor = given.values["top"], given.values["per_level"]
    if top is not None and factor is not None:
        raise UsageError(
            f"--top {top} and --per-level {factor} name two sets of configurations; leave one of "
            "them out."
        )
    if factor is None:
        chosen = candidates.best(search.trials, top or DEFAULT_TOP, maximize=search.maximize)
        if not chosen:
            raise UsageError(
                f"{search.name} has no trial that ran to its end, so there is nothing to confirm; "
                "run more trials, or use --per-level FACTOR."
            )
        if len(chosen) < (top or 0):
            console.print(
                f"{search.name} has {wording.count(len(chosen), 'configuration')} that ran to "
                f"the end, fewer than --top {top}"
            )
        return chosen
    levels = levels_of(factor, search.snapshot)
    found = candidates.best_of_levels(search.trials, factor, levels, maximize=search.maximize)
    if not found:
        raise UsageError(
            f"{search.name} has no trial with a value, so there is nothing to confirm; run it."
        )
    for place, level in enumerate(levels):
        if place not in found:
            console.print(f"left out: {factor} = {level}, which has no trial that did not diverge")
    return [found[place] for place in sorted(found)]


def _precision(search: _Search) -> str:
    """What the search's trials computed in, where that is one precision; else what was asked."""
    used = {it.user_attrs.get("precision") for it in search.trials} - {None}
    return str(used.pop()) if len(used) == 1 else search.stored.search.get("precision", AUTO)


def _enrol(
    plan: _Plan, settings: RunSettings, console: Console, database: Database, snapshot: Snapshot
) -> Enrolled:
    """Register the confirmation, and note in the search that its test set is opened."""
    search = plan.search
    difference = snapshot.difference(search.snapshot)
    if difference:
        raise UsageError(
            f"{snapshot.file} is no longer the file of {search.name}: {difference}; bring back the "
            "version that the search was run with."
        )
    record = register(
        database,
        plan.name,
        snapshot,
        seed=settings.seed,
        search={"sampler": "random", "pruner": "none", "precision": settings.precision},
        attrs={CONFIRMS_ATTR: search.name, CONFIGURATIONS_ATTR: plan.configurations},
    )
    if snapshot.file_hash != search.snapshot.file_hash:
        record.warnings.append(
            f"{snapshot.file} changed since {search.name} was run; check that it still trains the "
            "same way."
        )
    has_test = "test" in snapshot.offers
    if has_test:
        opening = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": environment.describe()["commit"],
            "study": plan.name,
            "configurations": len(plan.configurations),
            "seeds": plan.seeds,
        }
        record_opening(database, find_study(database, search.name), opening)
    _announce(plan, settings, console, snapshot)
    how = f"{_times(plan)}, unpruned, seed {record.seed}"
    return Enrolled(record, confirmation(plan.configurations), how)


def _times(plan: _Plan) -> str:
    count = wording.count(len(plan.configurations), "configuration")
    return f"{count} on {wording.count(plan.seeds, 'shared seed')}"


def _announce(plan: _Plan, settings: RunSettings, console: Console, snapshot: Snapshot) -> None:
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


def _resolution(plan: _Plan, snapshot: Snapshot, best: float | None) -> str:
    """The smallest difference that so many seeds can show, where errors are shares of images."""
    arms, images = len(plan.configurations), snapshot.test_images
    if best is None or images is None or arms < 2 or not 0 < best < 1:
        return ""
    error = 1 - best if plan.search.maximize else best
    pairs = arms * (arms - 1) // 2
    found = smallest_difference(binomial_deviation(error, images), plan.seeds, pairs)
    return (
        f"{plan.seeds} seeds find a difference of {100 * found:.2g} points with a power of 80 %, "
        f"if runs differ by no more than the luck of {images:,} images at an error of "
        f"{error:.2%}; after {SEEDS_FOR_SPREAD} seeds it is told by their own spread."
    )


def _cost(plan: _Plan, settings: RunSettings) -> str:
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

    address: str
    plan: _Plan
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
