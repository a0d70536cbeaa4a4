"""One worker: claim a trial, run the objective, record what came out; until nothing is left."""

import logging
import math
import numbers
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import _filter_study
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState

from tuner import environment, interrupt, log, outcomes
from tuner.artifacts import MODEL_FILE, Artifacts
from tuner.design import Design, Purpose
from tuner.errors import StorageError
from tuner.machine import own_megabytes
from tuner.search import SearchContext, make_pruner, make_sampler
from tuner.seeds import trial_seed
from tuner.storage import (
    Claim,
    Claims,
    Database,
    HeldRow,
    NoTrial,
    Owner,
    only_arm,
    record_environment,
    storage_errors,
)
from tuner.storage.attributes import OUTCOME_ATTR, REASON_ATTR, trial_in_order
from tuner.study import Definition
from tuner.trial import ClaimedTrial

# How often to ask for a trial while others work on the last ones, in seconds.
ASK_AGAIN_SECONDS = 0.5
# A failure's reason is cut at so many characters; the whole is in the log with --verbose.
LONGEST_REASON = 500

# Of a study file's SHA-256, as many digits as a trial keeps.
SOURCE_LENGTH = 12

OUT_OF_MEMORY = "out of memory"
TIMED_OUT = "timed out"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """What a worker must know to take trials of a study.

    Attributes:
        target: how many trials shall end COMPLETE or PRUNED.
        seed: the study's seed.
        uid: names the study in the artifact store.
        artifacts: the artifact store's address, see `tuner.artifacts.open_store`.
        most_failed: stop when more rows of the study than this are FAIL.
        trial_timeout: seconds after which the engine kills a worker with its trial, or None.
        worker: this worker's number on this host, from 1; 0 in the command's own process.
        design: how the trials are dealt to arms, or None.
    """

    study_id: int
    study_name: str
    target: int
    seed: int
    uid: str
    artifacts: str
    sampler: str
    pruner: str
    most_failed: int
    trial_timeout: float | None
    worker: int
    design: Design | None = None

    @staticmethod
    def from_dict(message: dict[str, Any]) -> "Assignment":
        """The inverse of `dataclasses.asdict`."""
        design = message["design"]
        return Assignment(**{**message, "design": design and Design.from_dict(design)})


@dataclass(frozen=True)
class Ending:
    """How a trial ended: Optuna's state, its values, and why.

    Attributes:
        values: one for each objective, or None.
        outcome: one of `tuner.outcomes`.
        reason: of a failure or a divergence, in one line; else "".
    """

    state: TrialState
    values: list[float] | None
    outcome: str
    reason: str = ""


class ServedStudy(optuna.Study):
    """The study that an objective sees as ``trial.study``."""

    def stop(self) -> None:
        """Do nothing: the budget is the command's. Optuna's grid sampler calls this at its end."""
        if interrupt.in_objective():
            logger.warning("trial.study.stop() is ignored: --trials decides when a study ends")


def _tell_nobody(_number: int | None) -> None: ...


class Worker:
    """Takes trials of one study, one at a time.

    Args:
        definition: the loaded study file.
        assignment: what to work on.
        database: where the study is.
        owner: this process.
        tell: called with a trial's number when it begins, and with None when it has ended.

    Attributes:
        megabytes: this process's own memory after its first trial, and after its last one.
    """

    def __init__(
        self,
        definition: Definition,
        assignment: Assignment,
        database: Database,
        owner: Owner,
        tell: Callable[[int | None], None] = _tell_nobody,
    ) -> None:
        self._definition = definition
        self._assignment = assignment
        self._database = database
        self._owner = owner
        self._tell = tell
        self._artifacts = Artifacts(assignment.artifacts, assignment.study_name, assignment.uid)
        self._claims = Claims(database, assignment.study_id)
        self._pruner = make_pruner(assignment.pruner, definition.snapshot)
        here = environment.describe()
        self._environment = environment.digest(here)
        record_environment(database, assignment.study_id, self._environment, here)
        self.megabytes = (0, 0)
        # Of each arm, see `SearchContext.known`.
        self._known_spaces: dict[int | None, IntersectionSearchSpace] = {}

    def work(self) -> Iterator[None]:
        """Run trials until the study has reached its target or somebody asks to stop.

        Yields:
            None after each trial, and after each wait for one.
        """
        while not interrupt.requested():
            got = self._claims.claim(
                self._owner,
                self._seed_of,
                target=self._assignment.target,
                most_failed=self._assignment.most_failed,
                design=self._assignment.design,
            )
            if got in {NoTrial.ALL_TAKEN, NoTrial.PAUSED}:
                interrupt.wait(ASK_AGAIN_SECONDS)
            elif isinstance(got, NoTrial):
                logger.debug("no more trials: %s", got.value)
                return
            else:
                self._tell(got.number)
                with (
                    log.bound(trial=got.number),
                    storage_errors(self._database.url),
                    tempfile.TemporaryDirectory(
                        prefix="tuner-", ignore_cleanup_errors=True
                    ) as folder,
                ):
                    self._run(got, Path(folder))
                self._tell(None)
            yield

    def _seed_of(self, number: int) -> int:
        """The seed of a trial with this number, or of a block where the study has arms."""
        design = self._assignment.design
        if design is not None and design.seeds is not None:
            return design.seeds[number % len(design.seeds)]
        return trial_seed(self._assignment.seed, number)

    def _run(self, claim: Claim, folder: Path) -> None:
        design = self._assignment.design
        outputs = folder / "outputs"
        outputs.mkdir()
        checkpoint = self._artifacts.checkpoint(claim.number, folder)
        try:
            study = self._study_for(claim)
            trial = ClaimedTrial(
                study,
                claim.trial_id,
                row=HeldRow(self._database, claim, self._owner),
                checkpoint=checkpoint,
                outputs=outputs,
            )
            purpose = Purpose.SEARCH if design is None else design.purpose
            ending = evaluate(self._definition, trial, purpose)
        except interrupt.HandBack:
            self._claims.hand_back(self._owner)
            logger.debug("handed back")
            return
        except MemoryError:
            given = self._claims.hand_back(self._owner, death=OUT_OF_MEMORY)
            logger.warning("out of memory: %s", given.in_words())
            return
        now = own_megabytes()
        self.megabytes = (self.megabytes[0] or now, now)
        frozen = self._database.storage.get_trial(claim.trial_id)
        if _written(frozen.params) != _written(trial.params):
            # Two workers sampled the trial at once, and the other one's parameters were stored.
            ending = _failed("another worker overwrote its parameters")
        values = ending.values
        study.sampler.after_trial(_filter_study(study, frozen), frozen, ending.state, values)
        attrs = self._attrs_of(ending, trial.unwritten_attrs)
        files = self._keep(outputs) if ending.state is TrialState.COMPLETE else {}
        more = {**files, **trial.unwritten_constraints}
        if not self._claims.finish(claim, self._owner, ending.state, values, attrs, more):
            logger.warning("the trial was given to another worker; this result is dropped")
            self._artifacts.discard(files)
            return
        checkpoint.discard()

    def _keep(self, outputs: Path) -> dict[str, str]:
        """Store what the objective left; a full disk, or a server away, doesn't cost the trial."""
        try:
            return self._artifacts.upload(outputs)
        except OSError as error:
            logger.warning(
                "the trial's files cannot be stored in %s (%s): its result is kept, its model not",
                self._assignment.artifacts,
                error.strerror or error,
            )
            return {}

    def _attrs_of(self, ending: Ending, written: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's user attributes: the objective's, and where and how it ended."""
        attrs = {
            **written,
            "worker": self._assignment.worker,
            "host": self._owner.host,
            "environment": self._environment,
            "source": self._definition.snapshot.file_hash[:SOURCE_LENGTH],
            "memory_mb": self.megabytes[1],
            OUTCOME_ATTR: ending.outcome,
        }
        if ending.reason:
            attrs[REASON_ATTR] = ending.reason
        return trial_in_order(attrs)

    def _study_for(self, claim: Claim) -> optuna.Study:
        """The study with a sampler that is seeded for this trial alone."""
        design = self._assignment.design
        paired = design is not None and design.paired and claim.block is not None
        context = SearchContext(
            self._assignment.seed,
            claim.block if paired and claim.block is not None else claim.number,
            self._definition.space,
            self._known_spaces.setdefault(claim.arm, IntersectionSearchSpace(include_pruned=True)),
            paired,
        )
        # With arms, sampler and pruner see the trials of this one only.
        storage = self._database.storage
        study = ServedStudy(
            self._assignment.study_name,
            storage if claim.arm is None else only_arm(storage, claim.arm),
            sampler=make_sampler(self._assignment.sampler, context),
            pruner=self._pruner,
        )
        # Bring the storage's cache and the study's own up to date, as `ask` does.
        study._get_trials(deepcopy=False, states=None, use_cache=True)
        return study


def evaluate(
    definition: Definition, trial: ClaimedTrial, purpose: Purpose = Purpose.SEARCH
) -> Ending:
    """Sample the declared space and call the objective; an exception of it is an ending, too.

    Args:
        definition: the study file.
        trial: to be run.
        purpose: whether the model is measured on the test set at its end, or trained once and for
            all; never for a search.

    Raises:
        HandBack: somebody asked to stop.
        MemoryError: also for TensorFlow's ResourceExhaustedError.
        StorageInternalError: the database was lost; or StorageError.
    """
    try:
        trial.sample(definition.space or {})
        interrupt.check()
        with interrupt.objective():
            if purpose is Purpose.FINAL:
                definition.offered["final"](trial)
                # Nothing is measured; the value counts the models that were trained.
                count = len(definition.snapshot.metrics)
                return Ending(TrialState.COMPLETE, [1.0] * count, outcomes.COMPLETED)
            ending = _judge(definition.objective(trial), definition.snapshot.metrics, trial)
            if purpose is Purpose.CONFIRM and ending.state is TrialState.COMPLETE:
                _test(definition, trial)
            return ending
    except outcomes.Diverged as diverged:
        return _stopped_early(trial, outcomes.DIVERGED, str(diverged))
    except optuna.TrialPruned:
        return _stopped_early(trial, _unless_infeasible(outcomes.PRUNED, trial))
    except (MemoryError, StorageInternalError, StorageError):
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if type(error).__name__ == "ResourceExhaustedError":  # TensorFlow's, not imported here
            raise MemoryError from error
        logger.debug("the objective raised", exc_info=error)
        return _failed(_in_one_line(error))


def _test(definition: Definition, trial: ClaimedTrial) -> None:
    """Measure the trained model on the test set, if the study has one."""
    if "test" in definition.offered and trial.outputs is not None:
        for name, value in definition.measure("test", trial.outputs / MODEL_FILE).items():
            trial.set_user_attr(name, value)


def _written(params: Mapping[str, Any]) -> list[str]:
    """Parameters as text, which is equal for equal ones, also for NaN."""
    return sorted(f"{name}={value!r}" for name, value in params.items())


def _judge(returned: object, metrics: Sequence[str], trial: ClaimedTrial) -> Ending:
    """The end of a trial whose objective returned something."""
    if len(metrics) == 1:
        values, wanted = [returned], "a number"
    else:
        values = [*returned] if isinstance(returned, Iterable) else []
        wanted = f"{len(metrics)} numbers ({', '.join(metrics)})"
    found = [_number(it) for it in values]
    known = [it for it in found if it is not None]
    if not len(found) == len(known) == len(metrics):
        return _failed(f"the objective returned {returned!r}; it must return {wanted}")
    if any(math.isnan(it) for it in known):
        which = "" if len(metrics) == 1 else f" as {metrics[[*map(math.isnan, known)].index(True)]}"
        return _failed(f"the objective returned nan{which}")
    return Ending(TrialState.COMPLETE, known, _unless_infeasible(outcomes.COMPLETED, trial))


def _unless_infeasible(outcome: str, trial: ClaimedTrial) -> str:
    """The outcome of a trial that ended so, unless it breaks a constraint."""
    return outcomes.INFEASIBLE if outcomes.breaks_constraint(trial) else outcome


def _number(value: object) -> float | None:
    if isinstance(value, numbers.Real) or hasattr(value, "__float__"):
        return float(value)
    return None


def _stopped_early(trial: ClaimedTrial, outcome: str, reason: str = "") -> Ending:
    """A pruned trial's value is the one at its last step, as in Optuna; of several, none is."""
    frozen = trial.storage.get_trial(trial._trial_id)
    last = None if frozen.last_step is None else frozen.intermediate_values[frozen.last_step]
    value = None if last is None or math.isnan(last) else last
    return Ending(TrialState.PRUNED, None if value is None else [value], outcome, reason)


def _failed(reason: str) -> Ending:
    return Ending(TrialState.FAIL, None, outcomes.FAILED, reason)


def _in_one_line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
