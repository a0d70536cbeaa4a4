"""What `tuner run --dry-run` shows: the settings, the space, samples, the rungs, time and disk.

Nothing is written: no database, no cache, no compiled Python.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.artifacts import BUCKET_SCHEME, open_store
from tuner.cache import Kept
from tuner.candidates import to_take_over
from tuner.design import Design
from tuner.errors import NoDatabase, UsageError
from tuner.flags import ENGINES, SETTINGS, Source
from tuner.levels import design_of, in_words
from tuner.loading import check
from tuner.look import Look, look
from tuner.search import (
    PRUNING_IN_WORDS,
    REDUCTION_FACTOR,
    SearchContext,
    make_pruner,
    make_sampler,
    pruner_for,
    rungs,
)
from tuner.seeds import draw_study_seed
from tuner.settings import RunSettings
from tuner.storage import StudyPreview, open_database, preview, this_process
from tuner.storage.attributes import ARM_ATTR, FROM_STUDY_ATTR
from tuner.study import Snapshot

SAMPLES = 3
# The mean time of a trial is taken over so many of the last ones on this machine.
TRIALS_FOR_COST = 100
# What a trial takes in the database: 100 trials of the MNIST study, of 1 to 7 steps, made a SQLite
# file of 340 kB.
DATABASE_BYTES_A_TRIAL = 3_400


@dataclass(frozen=True)
class _Plan:
    """All that is shown.

    Attributes:
        stored: what the database holds of this study, or None.
        seed: the study's; drawn for this look where nobody named one.
        taken: configurations of another study that a run would try first.
    """

    settings: RunSettings
    look: Look
    stored: StudyPreview | None
    seed: int
    shown_url: str
    taken: list[dict[str, Any]]

    @property
    def snapshot(self) -> Snapshot:
        """What the study file declares."""
        return self.look.snapshot

    @property
    def design(self) -> Design | None:
        """How the trials are dealt to arms."""
        compare = self.stored.compare if self.stored else self.settings.compare
        return design_of(compare, [], self.settings.sampler, self.snapshot)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that are there already."""
        return self.stored.trials if self.stored else []

    @property
    def ended(self) -> int:
        """How many trials count to the target already."""
        return sum(it.state in {TrialState.COMPLETE, TrialState.PRUNED} for it in self.trials)

    @property
    def missing(self) -> int:
        """How many trials a run would add."""
        return max(0, self.settings.trials - self.ended)


def dry_run(settings: RunSettings, console: Console) -> None:
    """Show what a run with these settings would do.

    Raises:
        TunerError: what the run itself would raise before its first trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = _plan(settings, console)
    settings = plan.settings
    name = settings.study
    there = f", {plan.ended} there already" if plan.stored else ""
    console.print(
        Text.assemble(
            (f"dry run of {name}: {wording.count(settings.trials, 'trial')}{there}", "bold"),
            "; nothing is trained, nothing is written",
        )
    )
    for warning in plan.stored.warnings if plan.stored else ():
        console.print(Text(warning, style="yellow"))
    for title, rows in (
        ("settings", _settings(plan)),
        ("space", _space(plan.snapshot)),
        (f"samples, {settings.sampler}{_how_sampled(plan)}", _samples(plan)),
        (f"pruner, {settings.pruner}{_judged(plan)}", _pruning(plan)),
        ("time", _time(plan)),
        ("disk", _disk(plan)),
    ):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(_table(rows))


def _plan(settings: RunSettings, console: Console) -> _Plan:
    open_store(settings.artifacts).check()
    with console.status(Text(f"loading {settings.study_file} ...")):
        seen = look(settings.study_file, settings.worker_variables())
    check(settings, seen.snapshot)
    settings = replace(settings, pruner=pruner_for(seen.snapshot, settings.pruner))
    try:
        with contextlib.closing(open_database(settings.storage, read_only=True)) as database:
            shown_url = database.url
            stored = preview(
                database,
                settings.study,
                seen.snapshot,
                seed=settings.seed,
                precision=settings.precision,
                compare=settings.compare,
            )
            compare = stored.compare if stored else settings.compare
            chosen = to_take_over(settings, database, seen.snapshot, compare)
    except NoDatabase:
        stored, shown_url, chosen = None, wording.redact(settings.storage), []
        if settings.from_study is not None:
            raise UsageError(
                f"There is no study {settings.from_study!r}: there is no database {shown_url} yet."
            ) from None
    taken = _not_there_yet(settings, stored, [it.params for it in chosen])
    asked = draw_study_seed() if settings.seed is None else settings.seed
    return _Plan(settings, seen, stored, stored.seed if stored else asked, shown_url, taken)


def _not_there_yet(
    settings: RunSettings, stored: StudyPreview | None, configurations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Those of another study's configurations that a run would add; see `storage.take_over`."""
    trials = stored.trials if stored else []
    sources = {
        it.user_attrs[FROM_STUDY_ATTR][0] for it in trials if FROM_STUDY_ATTR in it.user_attrs
    }
    if settings.from_study in sources:
        return []
    counted = sum(it.state != TrialState.FAIL for it in trials)
    return configurations[: max(0, settings.trials - counted)]


def _settings(plan: _Plan) -> Iterator[Sequence[str]]:
    """Each setting, its value, and where that comes from."""
    settings, given, ray = plan.settings, plan.settings.given, plan.settings.ray
    shown = {
        "engine": "ray" if ray else ENGINES[0],
        "ray_address": ray.address if ray else "not used",
        "cpus_per_worker": f"{ray.cpus:g}" if ray else "not used",
        "gpus_per_worker": f"{ray.gpus:g}" if ray else "not used",
        "study": str(settings.study_file),
        "study_name": settings.study,
        "storage": plan.shown_url,
        "seed": f"{plan.seed}" if plan.stored or settings.seed is not None else "drawn by the run",
        "max_failures": f"{settings.max_failures} failed trials",
        "cache_gb": f"{settings.cache_gb:g} GB",
        "timeout": _seconds(settings.timeout),
        "trial_timeout": _seconds(settings.trial_timeout),
        "compare": (plan.stored.compare if plan.stored else settings.compare) or "nothing",
        "from_study": settings.from_study or "none",
        "detach": "yes" if settings.detach else "no",
        "quiet": "yes" if settings.quiet else "no",
        "no_publish": "yes" if settings.no_publish else "no",
    }
    names = ["study", "study_name", "trials", *(name.replace("-", "_") for name in SETTINGS)]
    for name in [*names, "compare", "from_study", "detach"]:
        if name not in given.values:
            continue  # another command's
        source = str(given.sources[name])
        if given.sources[name] is Source.ENVIRONMENT:
            source = f"{source}, {given.subject(name)}"
        elif name == "seed" and plan.stored:
            source = "database"
        value = shown.get(name) or str(getattr(settings, name))
        yield name.replace("_", "-"), value, source


def _seconds(limit: float | None) -> str:
    return "none" if limit is None else wording.duration(limit)


def _space(snapshot: Snapshot) -> Iterator[Sequence[str]]:
    space = snapshot.distributions()
    if space is None:
        yield ("known after the first trial: the file declares none, and its objective suggests",)
    for name, distribution in (space or {}).items():
        yield name, in_words(distribution)


def _samples(plan: _Plan) -> Iterator[Sequence[str]]:
    """Configurations of the next trials, as the sampler would draw them now."""
    space = plan.snapshot.distributions()
    if space is None:
        yield ("known when the objective runs",)
        return
    yield "trial", *space
    # A run takes these first, as they are; what they leave open it samples.
    first = [
        (it.number, {**it.system_attrs.get("fixed_params", {}), **it.params})
        for it in plan.trials
        if it.state == TrialState.WAITING
    ]
    first += list(enumerate(plan.taken, len(plan.trials)))
    next_number = len(plan.trials) + len(plan.taken)
    dealt: list[int] = []  # arms of the trials that are shown
    for index in range(SAMPLES):
        if index < len(first):
            number, params = first[index]
        else:
            number = next_number + index - len(first)
            params = _draw(plan, number, space, dealt)
        yield str(number), *(wording.number(params.get(name, "?")) for name in space)


def _draw(
    plan: _Plan, number: int, space: dict[str, BaseDistribution], dealt: list[int]
) -> dict[str, Any]:
    """The parameters of the trial with this number; with arms, its arm is added to ``dealt``."""
    design = plan.design
    if design is None:
        study = _copy_of_study(plan, plan.trials)
    else:
        there = [(it.system_attrs.get(ARM_ATTR), it) for it in plan.trials]
        alive = [its for its, it in there if its is not None and it.state != TrialState.FAIL]
        arm = design.next_arm(Counter([*alive, *dealt]))
        mine = [it for its, it in there if its == arm]
        study = _copy_of_study(plan, mine)
        study.enqueue_trial(design.arms[arm])
        if design.paired:
            number = len(mine) + dealt.count(arm)
        dealt.append(arm)
    study.sampler = make_sampler(
        plan.settings.sampler,
        SearchContext(
            plan.seed,
            number,
            space,
            paired=design is not None and design.paired,
        ),
    )
    return study.ask(fixed_distributions=space).params


def _copy_of_study(plan: _Plan, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """The study in memory, as a sampler of the run would find it now."""
    study = optuna.create_study(
        study_name=plan.settings.study,  # hyperband's brackets depend on it
        directions=[StudyDirection[it.upper()] for it in plan.snapshot.directions],
        pruner=make_pruner(plan.settings.pruner, plan.snapshot),
    )
    # One that waits would be taken by `ask`; samplers do not look at it.
    study.add_trials([trial for trial in trials if trial.state != TrialState.WAITING])
    return study


def _how_sampled(plan: _Plan) -> str:
    if plan.snapshot.space is None:
        return ""
    if plan.stored is None and plan.settings.seed is None:
        return ", with a seed drawn for this look"
    return "; those after the first depend on how trials end"


def _judged(plan: _Plan) -> str:
    has_rungs = rungs(plan.settings.pruner, plan.snapshot)
    return ": trials are judged at their first report from there on" if has_rungs else ""


def _pruning(plan: _Plan) -> Iterator[Sequence[str]]:
    name, snapshot = plan.settings.pruner, plan.snapshot
    brackets = rungs(name, snapshot)
    if not plan.missing:
        yield ("nothing to judge: all trials are there",)
        return
    if not brackets:
        yield (PRUNING_IN_WORDS[name],)
    for number, steps in enumerate(brackets):
        if len(brackets) > 1:
            words = ", ".join(str(step) for step in steps) or "none: its trials run to the end"
            yield f"bracket {number + 1}", f"at steps {words}"
            continue
        going = float(plan.missing)
        for step in steps:
            before, going = going, going / REDUCTION_FACTOR
            at = wording.progress_of(step, snapshot.max_step, snapshot.steps_per_epoch)
            yield at, f"the best third goes on: of {before:.0f} about {going:.0f}"
    if brackets and snapshot.max_step is None:
        yield ("and so on; the file names no max_step",)


def _time(plan: _Plan) -> Iterator[Sequence[str]]:
    """The time of the missing trials, by those that this machine has run."""
    host = this_process().host
    seconds = [
        trial.duration.total_seconds()
        for trial in plan.trials
        if trial.duration is not None
        and trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
        and trial.user_attrs.get("host") == host
    ][-TRIALS_FOR_COST:]
    if not plan.missing:
        yield ("nothing to do: all trials are there",)
    elif not seconds:
        yield (
            f"unknown: no trial of {plan.settings.study} in this database was run on this machine",
        )
    else:
        mean, workers = fmean(seconds), max(1, plan.settings.workers)
        sum_up = f"{wording.count(plan.missing, 'trial')} of {mean:.3g} s"
        basis = f"the mean of {wording.count(len(seconds), 'trial')} here"
        by = f"by {wording.count(workers, 'worker')}"
        whole = wording.duration(plan.missing * mean / workers)
        yield (f"about {whole} beside the start: {sum_up}, {basis}, {by}",)


def _disk(plan: _Plan) -> Iterator[Sequence[str]]:
    settings = plan.settings
    yield "database", f"about {wording.size(plan.missing * DATABASE_BYTES_A_TRIAL)} more", ""
    for kept in plan.look.footprint:
        yield from _kept(kept, settings)
    if not plan.look.footprint:
        yield "study file", "does not say what it keeps", ""
    places = {"cache": settings.cache_dir}
    if not settings.artifacts.startswith(BUCKET_SCHEME):
        places["artifacts"] = Path(settings.artifacts)
    for what, place in places.items():
        yield f"free, {what}", wording.size(shutil.disk_usage(_existing(place)).free), str(place)


def _kept(kept: Kept, settings: RunSettings) -> Iterator[Sequence[str]]:
    if kept.each_worker:
        workers = max(1, settings.workers)
        each = f"{wording.count(workers, 'worker')}, {wording.size(kept.size)} each"
        yield kept.what, f"up to {wording.size(kept.size * workers)}", f"{each}; go with the trial"
    else:
        room = kept.size <= settings.cache_gb * 1e9 or not kept.bounded
        words = "to be made" if room else "no room within cache-gb: computed again and again"
        yield kept.what, wording.size(kept.size), "there already" if kept.there else words


def _existing(place: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (place, *place.parents) if path.exists())


def _table(rows: Iterator[Sequence[str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        while len(table.columns) < len(row):
            table.add_column(overflow="fold", no_wrap=not table.columns)
        table.add_row(*(Text(f"  {cell}" if not i else cell) for i, cell in enumerate(row)))
    return table
