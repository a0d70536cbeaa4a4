"""Which search is to be confirmed, with which configurations, and under which name."""

from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from tuner import candidates, wording
from tuner.candidates import Candidate
from tuner.errors import UsageError
from tuner.flags import Given
from tuner.levels import levels_of
from tuner.machine import AUTO
from tuner.seeds import confirmation_seed
from tuner.storage import (
    Database,
    StoredAttributes,
    find_confirmations,
    find_study,
    read_contents,
)
from tuner.study import Snapshot

DEFAULT_TOP = 5


@dataclass(frozen=True)
class Search:
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
class Plan:
    """A confirmation that is to be run, or to be gone on with.

    Attributes:
        name: the confirmation's.
        configurations: the parameters of each.
        chosen: where they come from; empty where an earlier command chose others.
        asked: which they are, and on how many seeds, see `StoredAttributes.asked`.
        seed: of the confirmation.
        ended: how many of its runs have ended.
    """

    search: Search
    name: str
    configurations: list[dict[str, Any]]
    chosen: list[Candidate]
    asked: dict[str, Any]
    seed: int
    ended: int = 0

    @property
    def seeds(self) -> int:
        """On how many each configuration runs."""
        return int(self.asked["seeds"])

    @property
    def runs(self) -> int:
        """How many it has in the end."""
        return len(self.configurations) * self.seeds

    @property
    def missing(self) -> bool:
        """Whether there is something to run."""
        return self.ended < self.runs


def read_search(database: Database, name: str) -> Search:
    """What the database holds of a search and of its confirmations.

    Raises:
        UsageError: there is no such study, or it cannot be confirmed.
    """
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
    if stored.snapshot.more_objectives:
        raise UsageError(
            f"{name} has {len(stored.snapshot.metrics)} objectives, of which none decides what is "
            "best; search for one of them, the others as constraints, and confirm that study."
        )
    confirmations = []
    for other in find_confirmations(database, name):
        found = read_contents(database, other)
        ended = sum(state in {"COMPLETE", "PRUNED"} for _, state, *_ in found.trials)
        confirmations.append((found.name, StoredAttributes.of(found.user_attrs), ended))
    trials = database.storage.get_all_trials(study_id, deepcopy=False)
    return Search(name, stored, stored.snapshot, stored.seed, trials, confirmations)


def plan_of(database: Database, search: Search, given: Given, console: Console) -> Plan:
    """Go on with the latest confirmation if it was asked for so; else begin one, if allowed.

    Raises:
        UsageError: there is nothing to confirm, or there is another confirmation already.
    """
    asked = _asked(given)
    chosen = _choose(search, given, console)
    configurations = [it.params for it in chosen]
    if search.confirmations:
        name, latest, ended = search.confirmations[0]
        same, runs = latest.asked == asked, len(latest.configurations) * asked["seeds"]
        if same and latest.configurations and (ended < runs or not given.values["again"]):
            if latest.configurations != configurations:
                console.print(f"{name} keeps its configurations; {search.name} has changed since")
                chosen = []
            seed = latest.seed or 0
            return Plan(search, name, latest.configurations, chosen, asked, seed, ended)
        if not given.values["again"]:
            raise UsageError(_refusal(search, name, latest))
    names = {it.study_name for it in database.storage.get_all_studies()}
    count = max(len(search.confirmations), len(search.stored.openings))
    while (name := _name(search.name, count)) in names:
        count += 1
    seed = confirmation_seed(search.seed, count)
    return Plan(search, name, configurations, chosen, asked, seed)


def _asked(given: Given) -> dict[str, Any]:
    """What tells one confirmation of a search from another."""
    values = given.values
    if values["per_level"] is not None:
        return {"per_level": values["per_level"], "seeds": values["seeds"]}
    return {"top": values["top"] or DEFAULT_TOP, "seeds": values["seeds"]}


def _name(search: str, count: int) -> str:
    """The name of a search's confirmation, if it has so many before."""
    return f"{search}-confirm" + (f"-{count + 1}" if count else "")


def _refusal(search: Search, name: str, latest: StoredAttributes) -> str:
    count = len(latest.configurations)
    asked = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in latest.asked.items())
    openings = search.stored.openings
    opened = f"The test set was opened {wording.times(len(openings))} for {search.name} already"
    why = f"{opened}, and each opening makes its error more hopeful. " if openings else ""
    return (
        f"{search.name} has the confirmation {name}, of other configurations or seeds "
        f"({wording.count(count, 'configuration')}; {asked}). {why}Give the same flags to see it "
        "or to go on with it, or --again to make another."
    )


def _choose(search: Search, given: Given, console: Console) -> list[Candidate]:
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
                f"{search.name} has no trial that ran to its end and keeps to its constraints, so "
                "there is nothing to confirm; run more trials, or use --per-level FACTOR."
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


def precision_of(search: Search) -> str:
    """What the search's trials computed in, where that is one precision; else what was asked."""
    used = {it.user_attrs.get("precision") for it in search.trials} - {None}
    return str(used.pop()) if len(used) == 1 else search.stored.search.get("precision", AUTO)
