"""Pairs of factors: each cell with all else tuned for it, and whether choices hang together."""

import itertools
import math

import numpy as np
import numpy.typing as npt

from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor
from tuner.report.model import SEED, StudyModel
from tuner.report.plots import cells, compared, theme, words
from tuner.report.plots.cells import Pair
from tuner.report.plots.facts import score_label, turned
from tuner.report.results import Results
from tuner.report.scale import Scale
from tuner.report.statistics.levels import with_level

Array = npt.NDArray[np.float64]

_MOST_PAIRS = 3
_MOST_LEVELS = 12
# Of a pair: what is chosen may depend on what it is chosen for.
_FIRST = (("optimizer", "frozen_layers"), ("optimizer", "init"), ("init", "frozen_layers"))
_POOL = 400  # settings that are tried in the model for each level
_KEPT = 10  # of them, for each cell from its row and from its column
_DRAWS = 2000
_WIDE = math.log10(2.0)  # of an interval on a log scale: then a cell is marked
_LIKELY, _CLEAR = 0.8, 0.95  # of P(best)


def interactions(results: Results, model: StudyModel) -> list[Card]:
    """A heat map for each of up to three pairs of factors.

    Raises:
        CannotDraw: there are no two factors that trials have together.
    """
    pairs = _pairs(results, model)
    if not pairs:
        raise CannotDraw("The study has no two parameters with a few levels to combine.")
    factors = {it.name: it for pair in pairs for it in pair}
    good = {name: _good(results, model, it) for name, it in factors.items()}
    return [_card(results, model, _tuned(results, model, pair, good)) for pair in pairs]


def _pairs(results: Results, model: StudyModel) -> list[tuple[Factor, Factor]]:
    """The pairs people ask about, then those with the most cells and trials."""
    codes = results.codes.loc[model.modelled]
    found = {}
    for one, other in itertools.combinations(model.factors, 2):
        both = int(((codes[one.name] >= 0) & (codes[other.name] >= 0)).sum())
        first, second = (one, other) if len(one.levels) >= len(other.levels) else (other, one)
        for names in _FIRST:
            if names in {(one.name, other.name), (other.name, one.name)}:
                first, second = (results.factor(it) for it in names)
        if both:
            known = (first.name, second.name)
            rank = _FIRST.index(known) if known in _FIRST else len(_FIRST)
            found[first, second] = (rank, -len(one.levels) * len(other.levels) * both)
    return sorted(found, key=lambda it: found[it])[:_MOST_PAIRS]


def _good(results: Results, model: StudyModel, factor: Factor) -> dict[int, Array]:
    """The settings that the model expects to be good at each of the most tried levels."""
    generator = np.random.default_rng(SEED)
    pool = generator.permutation(model.pool)[:_POOL]
    counts = compared.tried(results, model, factor)
    levels = sorted(int(it) for it in np.argsort(-counts, kind="stable")[:_MOST_LEVELS])
    good = {}
    for level in levels:
        at_level = with_level(model.surrogate, model.column(factor.name), level, pool)
        best = np.argsort(model.surrogate.mean(at_level), kind="stable")
        good[level] = at_level[np.resize(best[:_KEPT], _KEPT)]
    return good


def _tuned(
    results: Results,
    model: StudyModel,
    pair: tuple[Factor, Factor],
    good: dict[str, dict[int, Array]],
) -> Pair:
    """Each cell at the best of the settings that are good for its row or its column."""
    at = [model.column(it.name) for it in pair]
    rows, columns = (list(good[it.name]) for it in pair)
    settings = np.array([
        np.vstack([good[pair[0].name][row], good[pair[1].name][column]])
        for row, column in itertools.product(rows, columns)
    ])  # fmt: skip
    settings[:, :, at] = np.array(list(itertools.product(rows, columns)))[:, np.newaxis]
    mean = model.surrogate.mean(settings.reshape(-1, settings.shape[2]))
    best = mean.reshape(len(settings), -1).argmin(axis=1)
    picks = settings[np.arange(len(settings)), best]
    generator = np.random.default_rng(SEED)
    draws = compared.posterior(model.surrogate, picks, _DRAWS, generator)
    low, high = np.quantile(draws, compared.ENDS, axis=0)
    shape = len(rows), len(columns)
    cells = mean.reshape(len(settings), -1).min(axis=1).reshape(shape)
    codes = results.codes.loc[model.modelled, [it.name for it in pair]].to_numpy()
    trials = np.array(
        [[int((codes == (row, column)).all(axis=1).sum()) for column in columns] for row in rows]
    )
    wide = _WIDE if results.scale.log else float(np.ptp(cells))
    unsure = ((high - low).reshape(shape) > wide) | (trials == 0)
    return Pair(*pair, rows, columns, cells, low.reshape(shape), high.reshape(shape),
                 draws.reshape(-1, *shape), trials, unsure)  # fmt: skip


def _card(results: Results, model: StudyModel, pair: Pair) -> Card:
    names = [theme.plain(it.label.lower()) for it in (pair.context, pair.choice)]
    left_out = [
        f"Of {len(it.levels)} levels of {theme.plain(it.label.lower())} the {_MOST_LEVELS} most "
        "tried are drawn."
        for it in (pair.context, pair.choice)
        if len(it.levels) > _MOST_LEVELS
    ]
    none = int((pair.trials == 0).sum())
    unsure = "a factor of 2" if results.scale.log else "the differences between the cells"
    log = results.scale.log
    return Card(
        key=words.key_of("interaction", f"{pair.context.name}__{pair.choice.name}"),
        title=_finding(pair),
        reading=f"Each cell is the tuned {theme.plain(score_label(results.scale))}"
        f"{' in per cent' if results.scale.share else ''}, all else chosen for that cell; dark is "
        f"{'high' if turned(results.scale) else 'low'}. Pale cells with a question mark "
        "are mostly extrapolated.",
        basis=compared.basis(
            results, model, f"{none} of {pair.trials.size} cells have no trial." if none else "",
            *left_out,
        ),
        alt=cells.alt_of(results, pair),
        figure=cells.figure_of(results, pair),
        table=cells.table_of(results, pair),
        narrow=cells.narrow_of(pair),
        note=f"The best of the settings that suit the level of {names[0]} or that of {names[1]}, "
        "by the model. A question mark: no trial has both levels, or the cell's 95 % interval is "
        f"wider than {unsure}. {_contrast(results.scale, pair)}"
        + (" Colours follow the logarithm." if log else ""),
    )  # fmt: skip


def _finding(pair: Pair) -> str:
    """Whether the best choice depends on the context, as far as that can be told."""
    p_best = pair.p_best
    told = [(i, int(row.argmax())) for i, row in enumerate(p_best) if row.max() >= _LIKELY]
    one, other = compared.kind_text(pair.context), theme.plain(pair.choice.label.lower())
    if not told:
        return _none_ahead(pair, one, other)
    by_choice: dict[int, list[int]] = {}
    for i, best in told:
        by_choice.setdefault(best, []).append(i)
    names = {j: theme.short(pair.choice.texts[pair.columns[j]]) for j in by_choice}
    open_ones = len(pair.rows) - len(told)
    rest = "; the others can't be told" if open_ones > 1 else ""
    rest = rest or ("; the other can't be told" if open_ones else "")
    if len(by_choice) == 1:
        (best,) = by_choice
        levels = theme.plain(pair.context.label.lower())
        if not open_ones:
            return f"The best {other} is likely {names[best]} whatever the {levels}"
        count = f"{len(told)} of {len(pair.rows)} levels of {levels}"
        return f"The best {other} is likely {names[best]} for {count}{rest}"
    clear = {best for i, best in told if p_best[i].max() >= _CLEAR}
    verb = "seems to depend" if len(clear) > 1 else "may depend"
    parts = [
        f"{names[best]} for {_listed(pair, rows)}"
        for best, rows in sorted(by_choice.items(), key=lambda it: -len(it[1]))
    ]
    return f"The best {other} {verb} on the {one}: likely {words.joined(parts[:3])}{rest}"


def _none_ahead(pair: Pair, one: str, other: str) -> str:
    """What can be said where no choice is ahead in any context: which ones are out."""
    beaten = [theme.short(pair.choice.texts[pair.columns[j]])
              for j in np.flatnonzero(pair.p_best.max(axis=0) < 1 - _CLEAR)]  # fmt: skip
    if not beaten or len(beaten) > 3:
        return f"Whether the best {other} depends on the {one} can't be told: none is clearly ahead"
    verb = "is" if len(beaten) == 1 else "are"
    return (
        f"The best {other} can't be told for any {one}; {words.joined(beaten)} {verb} it for none"
    )


def _listed(pair: Pair, rows: list[int]) -> str:
    names = [theme.short(pair.context.texts[pair.rows[i]]) for i in rows]
    return words.joined(names) if len(names) < 4 else f"{len(names)} levels"


def _contrast(scale: Scale, pair: Pair) -> str:
    """The best evidence that the best choice changes, as an interval."""
    best, found = pair.mean.argmin(axis=1), []
    for i, k in itertools.combinations(range(len(pair.rows)), 2):
        j, m = best[i], best[k]
        if j != m:
            d = pair.draws
            contrast = (d[:, i, m] - d[:, i, j]) + (d[:, k, j] - d[:, k, m])
            low, middle, high = np.quantile(contrast, [compared.ENDS[0], 0.5, compared.ENDS[1]])
            found.append((float(low), float(middle), float(high), i, k))
    if not found:
        return "The model expects the same best choice in every row."
    low, middle, high, i, k = max(found)
    names = [words.level_name(pair.context, pair.rows[it]) for it in (i, k)]
    texts = [compared.gap_text(scale, it) for it in (middle, low, high)]
    none = compared.gap_text(scale, 0.0)
    return (
        f"The strongest evidence of a change is between {names[0]} and {names[1]}: swapping their "
        f"best choices costs {texts[0]} in all (95 %: {texts[1]} to {texts[2]}, where "
        f"{none} is no change; chosen after looking)."
    )
