"""The words of a report: verdicts at known answers, and the sentences made of them."""

import math
import re
import shlex
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from tests.samples import OURS, SPACE, frozen, in_memory, mnist_like
from tests.unit.test_figures_compare import confirmed
from tuner.confirm import confirm as confirm_command
from tuner.report import answer
from tuner.report.factors import Factor
from tuner.report.material import Judged, Material
from tuner.report.results import Results
from tuner.report.scale import scale_of
from tuner.report.statistics.levels import TunedLevels
from tuner.report.verdicts import (
    CLEAR,
    EQUAL,
    LIKELY,
    UNDECIDED,
    Verdict,
    is_adaptive,
    judge,
    percent,
)
from tuner.run import run

ERRORS = scale_of("val_error", "minimize", [0.006, 0.8])
LOSSES = scale_of("val_loss", "minimize", [0.006, 0.8])


def levels(p_best: Sequence[float], draws: np.ndarray | None = None) -> TunedLevels:
    """Levels of which the leader, with the lowest mean, is the first of the greatest P(best)."""
    count = len(p_best)
    order = np.argsort(-np.array(p_best), kind="stable")
    mean = np.empty(count)
    mean[order] = np.log10(0.01) + 0.1 * np.arange(count)
    if draws is None:
        draws = np.tile(mean, (1000, 1))
    elif np.ptp(draws.mean(axis=0)) > 0:
        mean = draws.mean(axis=0)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return TunedLevels(
        settings=np.zeros((count, 1)),
        mean=mean,
        low=low,
        high=high,
        p_best=np.array(p_best),
        optima=draws,
        draws=draws,
    )


# --- the verdict --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_best", "balanced", "adaptive"),
    [
        (1.0, CLEAR, LIKELY),
        (0.95, CLEAR, LIKELY),
        (0.9499, LIKELY, LIKELY),
        (0.80, LIKELY, LIKELY),
        (0.7999, UNDECIDED, UNDECIDED),
        (0.5, UNDECIDED, UNDECIDED),
    ],
)
def test_the_word_follows_the_probability_and_the_design(
    p_best: float, balanced: str, adaptive: str
) -> None:
    tuned = levels([p_best, 1 - p_best])
    for is_so, word in ((False, balanced), (True, adaptive)):
        verdict = judge(tuned, ERRORS, adaptive=is_so)
        assert (verdict.word, verdict.leader, verdict.p_best) == (word, 0, p_best)


def near(spread: float, apart: float = 0.0) -> TunedLevels:
    """Three levels about 1 %: `apart` and `spread` are shares of all images."""
    generator = np.random.default_rng(0)
    draws = 0.01 + np.array([0, apart, apart / 2]) + generator.normal(0, spread, (4000, 3))
    return levels([0.4, 0.3, 0.3], np.log10(draws))


def test_equal_is_shown_by_two_tests_and_never_by_a_lack_of_difference() -> None:
    # The 90 % interval of a difference is 1.645 sqrt(2) 0.0003 = 0.0007 to each side.
    assert judge(near(0.0003), ERRORS, adaptive=False).word == EQUAL
    # 0.0012 to each side: beyond the margin of 0.001, though nothing is told apart.
    wide = judge(near(0.0005), ERRORS, adaptive=False)
    assert (wide.word, wide.worse) == (UNDECIDED, [])
    # As sure, but apart by more than the margin.
    assert judge(near(0.0003, apart=0.0015), ERRORS, adaptive=False).word == UNDECIDED


def test_equal_needs_a_share_and_a_balanced_design() -> None:
    assert judge(near(0.0003), ERRORS, adaptive=True).word == UNDECIDED
    assert ERRORS.share
    assert not LOSSES.share
    assert judge(near(0.0003), LOSSES, adaptive=False).word == UNDECIDED


def test_close_and_worse_are_all_the_others_nearest_first() -> None:
    generator = np.random.default_rng(0)
    draws = np.log10([0.03, 0.0102, 0.01, 0.02, 0.0101]) + generator.normal(0, 0.03, (4000, 5))
    verdict = judge(levels([0.1, 0.2, 0.4, 0.1, 0.2], draws), ERRORS, adaptive=True)
    assert verdict.leader == 2
    assert verdict.close == [4, 1]
    assert verdict.worse == [3, 0]


@pytest.mark.parametrize(
    ("samplers", "adaptive"),
    [
        (["random"], False),
        (["qmc"], False),
        (["grid"], False),
        (["random", "qmc"], False),
        (["tpe"], True),
        (["random", "tpe"], True),
        (["a sampler of the future"], True),
        ([], True),
        (None, True),
    ],
)
def test_adaptive_unless_it_is_known_that_it_is_not(
    samplers: list[str] | None, adaptive: bool
) -> None:
    attrs = {**OURS, "tuner:samplers": samplers}
    if samplers is None:
        del attrs["tuner:samplers"]
    assert is_adaptive(in_memory(mnist_like(3), attrs=attrs)) is adaptive


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.0, "0.00"), (0.004, "0.00"), (0.005, "0.01"), (0.834, "0.83"), (0.835, "0.84"),
        (0.125, "0.13"), (0.95, "0.95"), (0.9949, "0.99"), (0.995, "above 0.99"),
        (1.0, "above 0.99"),
    ],
)  # fmt: skip
def test_a_probability_is_never_told_as_one(probability: float, text: str) -> None:
    assert percent(probability) == text


@given(st.floats(0, 1))
def test_no_probability_is_certain(probability: float) -> None:
    text = percent(probability)
    assert text != "1.00"
    if text != "above 0.99":
        assert abs(float(text) - probability) <= 0.005 + 1e-9


# --- the scale ----------------------------------------------------------------------------------


def test_an_error_is_shown_in_per_cent_on_a_log_axis() -> None:
    assert (ERRORS.share, ERRORS.log, ERRORS.label) == (True, True, "validation error")
    assert ERRORS.shown([0.01]) == pytest.approx([0.01])
    assert ERRORS.to_model([0.01]) == pytest.approx([-2])
    assert ERRORS.from_model([-2]) == pytest.approx([0.01])
    assert ERRORS.ratio(0.012, 0.01) == "×1.20"


def test_an_accuracy_is_shown_as_its_error() -> None:
    scale = scale_of("val_accuracy", "maximize", [0.9, 0.99])
    assert (scale.share, scale.log) == (True, True)
    assert scale.label == "validation accuracy error (1 − value)"
    assert scale.shown([0.9, 0.99]) == pytest.approx([0.1, 0.01])
    beyond = scale_of("val_accuracy", "maximize", [0.9, 99.0])  # in per cent: no share
    assert (beyond.share, beyond.log) == (False, False)


def test_what_is_maximised_and_no_share_is_turned_over() -> None:
    scale = scale_of("reward", "maximize", [-3.0, 200.0])
    assert (scale.share, scale.log, scale.label) == (False, False, "−reward")
    assert scale.shown([200.0]) == [-200.0]
    assert scale.ratio(3, 1) == "+2"


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([0.1, 0.3], True),
        ([0.1, 0.2], False),  # within a factor of two a linear axis does
        ([0.0, 0.3], False),
        ([-1.0, 3.0], False),
        ([2.0, 2.0], False),
        ([], False),
        ([math.nan, math.inf, 0.1, 0.3], True),
    ],
)
def test_a_loss_is_on_a_log_axis_where_that_shows_more(values: list[float], log: bool) -> None:
    scale = scale_of("val_loss", "minimize", values)
    assert (scale.share, scale.log) == (False, log)
    finite = [it for it in values if math.isfinite(it)]
    np.testing.assert_allclose(scale.from_model(scale.to_model(scale.shown(finite))), finite)


@pytest.mark.parametrize("values", [[0.0, 0.01, 0.5], [0.0, 0.0], [0.0]])
def test_a_zero_error_has_its_place_on_a_log_axis(values: list[float]) -> None:
    scale = scale_of("error", "minimize", values)
    shown = scale.shown(values)
    assert scale.log
    assert 0 < shown[0] < 0.01
    assert np.isfinite(scale.to_model([0.0])).all()
    assert shown.tolist() == sorted(shown)


def test_the_metrics_name_alone_makes_no_share() -> None:
    assert not scale_of("error", "minimize", [0.1, 3.0]).share
    assert not scale_of("error", "minimize", [-0.1, 0.3]).share
    assert not scale_of("error", "minimize", []).share
    assert scale_of("", "minimize", [0.1]).label == "value"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (0.0058, "0.58 %"), (0.0, "0.00 %"), (0.0199, "1.99 %"), (0.02, "2.0 %"),
        (0.1234, "12.3 %"), (0.2, "20 %"), (1.0, "100 %"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_a_share_in_words(shown: float, text: str) -> None:
    assert ERRORS.text(shown) == text


@pytest.mark.parametrize(
    ("shown", "text"), [(0.012344, "0.01234"), (12345.6, "1.235e+04"), (-2.5, "-2.5"), (0, "0")]
)
def test_another_value_in_words(shown: float, text: str) -> None:
    assert LOSSES.text(shown) == text
    assert LOSSES.ratio(math.nan, 1) == "–"


# --- sentences ----------------------------------------------------------------------------------


def material(
    results: Results, *verdicts: tuple[str, Verdict], confirm: Results | None = None
) -> Material:
    """Results about which these verdicts are known: without a model where there are none."""
    made = Material(results, confirm)
    made.__dict__["judged"] = [
        Judged(results.factor(name), tuned_of(results.factor(name)), verdict)
        for name, verdict in verdicts
    ]
    return made


def tuned_of(factor: Factor) -> TunedLevels:
    """Its levels at 1 %, 1.1 %, 1.2 % and so on, each known to within a tenth."""
    count = len(factor.levels)
    mean = np.log10(0.01 * (1 + 0.1 * np.arange(count)))
    return TunedLevels(
        settings=np.zeros((count, 1)),
        mean=mean,
        low=mean + math.log10(0.9),
        high=mean + math.log10(1.1),
        p_best=np.full(count, 1 / count),
        optima=np.tile(mean, (10, 1)),
        draws=np.tile(mean, (10, 1)),
    )


@pytest.fixture(scope="module")
def searched() -> Results:
    return in_memory(mnist_like(60), attrs=OURS)


@pytest.fixture(scope="module")
def drawn() -> Results:
    return in_memory(mnist_like(60), attrs={**OURS, "tuner:samplers": ["random"]})


def verdict(
    word: str = UNDECIDED, leader: int = 0, close: Sequence[int] = (), worse: Sequence[int] = ()
) -> Verdict:
    return Verdict(word, leader, 0.5, list(close), list(worse))


def test_headlines(searched: Results, drawn: Results) -> None:
    """Each claim with its own strength; what is undecided is left away beside what is not."""
    cases = [
        (drawn, [("optimizer", verdict(CLEAR, 4))], "adam is the best optimizer"),
        (searched, [("optimizer", verdict(LIKELY, 4))], "adam is likely the best optimizer"),
        (drawn, [("optimizer", verdict(EQUAL))], "Every optimizer is equal within 0.1 point"),
        (searched, [("frozen_layers", verdict(LIKELY, 1))],
         "Frozen layers 1 is likely the best frozen layers"),
        (searched, [("optimizer", verdict(LIKELY, 4)), ("init", verdict(worse=[7]))],
         "adam is likely the best optimizer"),
        (drawn, [("optimizer", verdict(CLEAR, 4)), ("init", verdict(LIKELY, 0))],
         "adam is the best optimizer; pretrained is likely the best init"),
        (drawn, [("init", verdict(worse=[7]))], "random_normal is worse than the best init"),
        (searched, [("init", verdict(worse=[7]))],
         "random_normal is likely worse than the best init"),
        (searched, [("init", verdict(worse=[6, 7]))],
         "orthogonal and random_normal are likely worse than the best init"),
        (searched, [("init", verdict(worse=[1, 2, 3, 4, 6, 7]))],
         ("glorot_uniform, glorot_normal, he_uniform, he_normal and 2 more are likely worse than "
          "the best init")),
        (searched, [("frozen_layers", verdict(worse=[4]))],
         "Frozen layers 4 is likely worse than the best"),
        (searched, [("init", verdict()), ("optimizer", verdict())],
         "No init or optimizer stands out yet"),
    ]  # fmt: skip
    for results, verdicts, said in cases:
        assert answer.headline(material(results, *verdicts)).casefold() == said.casefold()


def test_headlines_without_a_comparison() -> None:
    assert answer.headline(material(in_memory([], attrs=OURS))) == "No trial has run to its end yet"
    few = in_memory(mnist_like(3), attrs=OURS)
    assert answer.headline(Material(few)) == "Nothing can be compared yet"
    two = in_memory([], directions=["minimize", "maximize"])
    assert answer.headline(Material(two)) == "2 objectives: what can be had for what"


def test_a_confirmation_has_the_first_word(searched: Results) -> None:
    confirm = confirmed({"adam": 0.006, "sgd": 0.02})
    known = material(searched, ("optimizer", verdict(LIKELY, 1)), confirm=confirm)
    assert answer.headline(known) == "On 10 shared seeds adam beats its rival"
    # Where it says nothing, the search does.
    for empty in (in_memory([], attrs=OURS), confirmed({"adam": 0.006})):
        known = material(searched, ("optimizer", verdict(LIKELY, 1)), confirm=empty)
        assert answer.headline(known) == "momentum is likely the best optimizer"


def test_the_lead_tells_the_best_and_the_search(searched: Results) -> None:
    lead = answer.lead(Material(searched))
    complete = searched.trials[searched.trials["outcome"] == "complete"]["value"]
    best = f"{100 * complete.min():.2f} %"
    found = re.match(
        r"The best of (\d+) completed trials has a validation error of (\S+ %); a re-run of it is "
        r"expected to give (\S+ %) \(95 % of re-runs (\S+) % to (\S+) %\)\.",
        lead,
    )
    assert found, lead
    assert int(found[1]) == len(complete)
    assert found[2] == best
    assert float(found[4]) < float(found[3].split()[0]) < float(found[5])
    counts = searched.params["optimizer"].value_counts()
    assert (
        f"The search chose its own trials (tpe), {counts.iloc[0]} of {counts.sum()} with " in lead
    )
    assert "so nothing here is called more than likely." in lead
    assert lead.endswith("would settle more:")  # and the command follows
    assert "None" not in lead
    assert "nan" not in lead


def test_the_lead_names_what_is_worse(searched: Results, drawn: Results) -> None:
    both = [
        ("optimizer", verdict(CLEAR, 4, worse=[0])),
        ("frozen_layers", verdict(worse=[3, 4])),
    ]
    for results, worse in ((searched, "Likely worse"), (drawn, "Worse")):
        lead = answer.lead(material(results, *both))
        said = (
            f"{worse} than the leader (at 95 %): among optimizer sgd; among frozen layers 3 and 4."
        )
        assert said in lead
    assert "chose its own trials" not in answer.lead(material(drawn, *both))


def test_the_lead_begins_with_the_confirmed_winner(searched: Results) -> None:
    runs = confirmed({"adam": 0.006, "sgd": 0.02}, test=True)
    lead = answer.lead(material(searched, ("optimizer", verdict()), confirm=runs))
    assert re.match(
        r"adam has a mean test error of 1\.\d\d % \(95 %: 1\.\d\d to 1\.\d\d %\) "
        r"over 10 runs of it\. The best of",
        lead,
    ), lead


def test_one_completed_trial_is_not_told_as_several() -> None:
    lead = answer.lead(Material(in_memory(mnist_like(2, states=False), attrs=OURS)))
    assert lead.startswith("The best of 1 completed trial has a validation error of ")
    failed = in_memory([frozen(TrialState.FAIL, {"optimizer": "adam"}, {}, None, {})], attrs=OURS)
    assert answer.lead(Material(failed)) == ""


def test_a_tile_says_what_is_expected_and_what_is_behind(searched: Results) -> None:
    known = material(
        searched, ("optimizer", Verdict(LIKELY, 0, 0.834, [1, 2], [3, 4])),
        ("init", Verdict(UNDECIDED, 0, 0.999, [1], [])),
    )  # fmt: skip
    first, second = (answer.tile(known, it) for it in known.judged)
    assert (first.label, first.leader, first.word) == ("Optimizer", "sgd", LIKELY)
    assert first.detail == "P(best) 0.83"
    assert first.text.startswith(
        "1.00 % expected of new runs at its best settings (0.90 % to 1.10 %). Not told from it: "
        "momentum and nesterov. Likely worse: rmsprop and adam (adam ×1.40)."
    )
    assert second.detail == "P(best) above 0.99"
    assert "Not told from it: glorot_uniform." in second.text
    assert "orse" not in second.text


def settled(results: Results, word: str = UNDECIDED, confirm: Results | None = None) -> str:
    return answer.settling_command(material(results, ("optimizer", verdict(word)), confirm=confirm))


@pytest.mark.parametrize("name", ["mnist", "a name with 'quotes' and $x", "-dash", "größe"])
@pytest.mark.parametrize("file", ["studies/mnist.py", "my studies/x.py"])
def test_the_command_that_would_settle_it_is_one(name: str, file: str) -> None:
    definition = {**OURS["tuner:definition"], "file": file}
    results = in_memory(
        mnist_like(20), name=name, attrs={**OURS, "tuner:definition": definition}
    )  # fmt: skip
    words = shlex.split(settled(results))
    assert words[:3] == ["python", "-m", "tuner.run"]
    with run.make_context("run", words[3:]) as context:
        given = context.params
    assert given["study"] == ("mnist" if file == "studies/mnist.py" else file)
    assert given["study_name"] == f"{name}-optimizer"
    assert given["compare"] == "optimizer"
    assert (given["trials"], given["seed"], given["precision"]) == (100, 1, "float32")


def test_no_command_where_nothing_is_to_be_settled(searched: Results, drawn: Results) -> None:
    assert settled(searched)
    assert settled(searched, LIKELY)
    assert settled(searched, CLEAR) == ""
    assert settled(searched, EQUAL) == ""
    assert settled(searched, confirm=confirmed({"adam": 0.006, "sgd": 0.02})) == ""
    foreign = in_memory(mnist_like(20))
    assert settled(foreign) == ""
    assert "would settle more" not in answer.lead(material(drawn, ("optimizer", verdict(CLEAR))))
    assert answer.settling_command(Material(in_memory([], attrs=OURS))) == ""


@pytest.mark.parametrize("name", ["mnist", "a name with 'quotes' and $x", "-dash"])
def test_where_budgets_were_equal_a_confirmation_would_settle_it(name: str) -> None:
    for attrs in ({**OURS, "tuner:compare": "optimizer"}, {**OURS, "tuner:samplers": ["random"]}):
        results = in_memory(mnist_like(20), name=name, attrs=attrs)
        words = shlex.split(settled(results))
        assert words[:3] == ["python", "-m", "tuner.confirm"]
        with confirm_command.make_context("confirm", words[3:]) as context:
            given = context.params
        assert (given["study"], given["per_level"], given["seeds"]) == (name, "optimizer", 10)
    lead = answer.lead(material(results, ("optimizer", verdict())))
    assert "re-run on shared fresh seeds, would settle more:" in lead
    # What is compared is the question; the other factors had no equal budgets.
    compared = in_memory(mnist_like(20), attrs={**OURS, "tuner:compare": "init"})
    assert settled(compared) == ""
    lead = answer.lead(material(compared, ("init", verdict())))
    live = compared.params["init"][compared.trials["outcome"] != "failed"].value_counts()
    least = int(live.min()) if len(live) == 8 else 0
    assert f"Each init got {least} to {live.max()} trials, of a search of its own (tpe)" in lead
    assert "chose its own trials" not in lead
    assert "Each init had an equal share" in answer.caution(material(compared, ("init", verdict())))


@pytest.mark.parametrize(("trials", "told"), [(28, "4 trials"), (30, "4 or 5 trials")])
def test_levels_that_share_all_else_are_told_with_their_trials(trials: int, told: str) -> None:
    levels = SPACE["optimizer"].choices  # type: ignore[attr-defined]
    dealt = mnist_like(trials, states=False)
    for number, it in enumerate(dealt):
        it.params = {**it.params, "optimizer": levels[number % 7]}
    # A trial that failed was dealt again.
    dealt.append(frozen(TrialState.FAIL, {"optimizer": "sgd"}, {}, None, {}))
    attrs = {**OURS, "tuner:compare": "optimizer", "tuner:samplers": ["random"]}
    known = material(in_memory(dealt, attrs=attrs), ("optimizer", verdict()))
    said = f"Each optimizer got {told} (random), with the same other settings and seeds for all."
    assert said in answer.lead(known)
    assert "more than likely" not in answer.lead(known)


def test_a_study_of_another_program_has_words_too() -> None:
    results = in_memory(mnist_like(20))
    lead = answer.lead(Material(results))
    assert "The search chose its own trials (its sampler is not known), " in lead
    assert "None" not in lead
    assert answer.method(Material(results)).startswith("Comparisons rest on one Gaussian process")
    assert answer.method(Material(in_memory([]))) == "No comparison was computed."


def test_caution_follows_the_design(searched: Results, drawn: Results) -> None:
    known = ("optimizer", verdict())
    assert "spent its trials where it expected to win" in answer.caution(material(searched, known))
    assert "every level had the same chance" in answer.caution(material(drawn, known))
    assert answer.caution(material(drawn)) == ""


def test_the_page_defines_each_word() -> None:
    said = answer.how_to_read()
    for word in (CLEAR, LIKELY, EQUAL, UNDECIDED):
        assert f"{word.capitalize()}: " in said
