"""What a chapter is made from: results, and what is computed from them once."""

import logging
from dataclasses import dataclass
from functools import cached_property

from numpy.linalg import LinAlgError

from tuner.report.cards import CannotDraw
from tuner.report.factors import Factor
from tuner.report.mistakes import Mistakes
from tuner.report.model import NoModel, StudyModel, model_of
from tuner.report.results import Results
from tuner.report.statistics.levels import TunedLevels
from tuner.report.verdicts import Verdict, is_adaptive, judge

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """A factor, its levels as the model estimates them, and what may be said of them."""

    factor: Factor
    tuned: TunedLevels
    verdict: Verdict


@dataclass(frozen=True)
class Material:
    """What a chapter is made from.

    Attributes:
        results: the study's.
        confirm: of the study that re-ran its configurations on shared fresh seeds, if there is one.
        mistakes: what the best trial's model gets wrong; a sentence where that should be known and
            is not; None where there is no such thing.
    """

    results: Results
    confirm: Results | None = None
    mistakes: Mistakes | str | None = None

    @cached_property
    def adaptive(self) -> bool:
        """Whether earlier results decided what was tried."""
        return is_adaptive(self.results)

    @cached_property
    def _model(self) -> StudyModel | str:
        try:
            return model_of(self.results)
        except NoModel as error:
            return str(error)
        except (ArithmeticError, LinAlgError, MemoryError, ValueError) as error:
            _log.debug("The model failed", exc_info=True)
            return f"No model could be fitted to this study: {error or type(error).__name__}."

    @property
    def model(self) -> StudyModel:
        """The study's model.

        Raises:
            CannotDraw: there is too little to model.
        """
        if isinstance(self._model, str):
            raise CannotDraw(self._model)
        return self._model

    @property
    def why_no_model(self) -> str:
        """A sentence, or "" where there is one."""
        return self._model if isinstance(self._model, str) else ""

    @cached_property
    def judged(self) -> list[Judged]:
        """The modelled factors; none without a model, and none of several objectives."""
        if isinstance(self._model, str) or len(self.results.directions) > 1:
            return []
        found = []
        for factor in self._model.factors:
            tuned = self._model.tuned(factor)
            verdict = judge(tuned, self.results.scale, adaptive=self.adaptive)
            found.append(Judged(factor, tuned, verdict))
        return found
