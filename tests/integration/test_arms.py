"""Arms on real databases: equal shares, blocks that share draws, views of one arm, openings."""

import dataclasses
from collections import Counter

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from tuner.design import Design, Purpose, confirmation, one_more
from tuner.errors import UsageError
from tuner.seeds import trial_seed
from tuner.storage import (
    Claim,
    Claims,
    Database,
    NoTrial,
    find_study,
    only_arm,
    read_stored,
    record_opening,
    register,
    this_process,
)
from tuner.storage.attributes import ARM_ATTR, BLOCK_ATTR, CONFIGURATIONS_ATTR
from tuner.study import Snapshot

KINDS = ("a", "b", "c")
SPACE = {"kind": CategoricalDistribution(KINDS), "x": FloatDistribution(0, 1)}
SNAPSHOT = Snapshot(
    {name: distribution_to_json(it) for name, it in SPACE.items()},
    "value",
    "minimize",
    None,
    "study.py",
    "hash",
)
DESIGN = Design([{"kind": kind} for kind in KINDS], paired=True)
SEED = 7
ME = this_process()


@pytest.fixture
def claims(database: Database) -> Claims:
    record = register(database, "study", SNAPSHOT, seed=SEED, search={}, compare="kind")
    return Claims(database, record.study_id)


def take(claims: Claims, target: int = 99, design: Design = DESIGN) -> Claim:
    got = claims.claim(
        ME, lambda block: trial_seed(SEED, block), target=target, most_failed=99, design=design
    )
    assert isinstance(got, Claim)
    return got


def test_each_new_trial_goes_to_the_arm_with_the_fewest(database: Database, claims: Claims) -> None:
    first = [take(claims) for _ in range(4)]
    assert [(it.arm, it.block) for it in first] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert [it.seed for it in first] == [trial_seed(SEED, it.block or 0) for it in first]
    assert len({it.seed for it in first[:3]}) == 1
    # A failed one counts to no arm's share; its block is not tried again.
    claims.finish(first[1], ME, TrialState.FAIL, None, {})
    assert [(it.arm, it.block) for it in (take(claims), take(claims))] == [(1, 1), (1, 2)]
    stored = database.backend.get_all_trials(find_study(database, "study"))
    assert [it.system_attrs["fixed_params"]["kind"] for it in stored] == list("abcabb")
    assert [it.user_attrs["seed"] for it in stored[:3]] == [first[0].seed] * 3


def test_a_trial_that_is_handed_back_keeps_its_place(claims: Claims) -> None:
    taken = take(claims)
    take(claims)
    claims.hand_back(ME)
    again = [take(claims), take(claims), take(claims)]
    assert again[0] == taken
    assert [(it.arm, it.block) for it in again] == [(0, 0), (1, 0), (2, 0)]


def test_a_confirmation_has_every_configuration_on_every_seed(claims: Claims) -> None:
    design = confirmation([{"kind": "c", "x": 0.25}, {"kind": "a", "x": 0.5}])
    assert design.purpose is Purpose.CONFIRM
    taken = []
    for _ in range(6):
        taken.append(take(claims, 6, design))
        claims.finish(taken[-1], ME, TrialState.COMPLETE, [1.0], {})
    assert Counter((it.arm, it.block) for it in taken) == Counter(
        (arm, block) for arm in range(2) for block in range(3)
    )
    full = claims.claim(ME, lambda it: it, target=6, most_failed=9, design=design)
    assert full is NoTrial.DONE


def test_a_run_of_a_confirmation_that_failed_is_tried_once_more_on_its_seed(
    claims: Claims,
) -> None:
    design = confirmation([{"kind": "c"}, {"kind": "a"}])

    def ended(state: TrialState) -> tuple[int | None, int | None]:
        taken = take(claims, 9, design)
        claims.finish(taken, ME, state, None if state is TrialState.FAIL else [1.0], {})
        return taken.arm, taken.block

    fail, complete = TrialState.FAIL, TrialState.COMPLETE
    assert [ended(fail), ended(fail), ended(complete)] == [(0, 0), (0, 0), (0, 1)]
    assert [ended(fail), ended(complete), ended(complete)] == [(1, 0), (1, 0), (0, 2)]


def test_what_a_confirmation_re_runs_never_changes(database: Database) -> None:
    attrs = {CONFIGURATIONS_ATTR: [{"kind": "c", "x": 0.25}]}
    for _ in range(2):
        register(database, "again", SNAPSHOT, seed=None, search={}, attrs=attrs)
    with pytest.raises(UsageError, match="Another command has just begun again"):
        register(database, "again", SNAPSHOT, seed=None, search={},
                 attrs={CONFIGURATIONS_ATTR: [{"kind": "a", "x": 0.25}]})  # fmt: skip
    assert read_stored(database, "again").configurations == [{"kind": "c", "x": 0.25}]


def test_a_view_of_an_arm_has_its_trials_only(database: Database, claims: Claims) -> None:
    for _ in range(7):
        claims.finish(take(claims), ME, TrialState.COMPLETE, [1.0], {})
    study_id = find_study(database, "study")
    for arm, numbers in enumerate(([0, 3, 6], [1, 4], [2, 5])):
        view = only_arm(database.storage, arm)
        study = optuna.Study("study", view, pruner=optuna.pruners.HyperbandPruner(1, 9))
        assert [it.number for it in study.get_trials(deepcopy=False)] == numbers
        assert [it.system_attrs[ARM_ATTR] for it in study.trials] == [arm] * len(numbers)
        assert [it.system_attrs[BLOCK_ATTR] for it in study.trials] == list(range(len(numbers)))
        # Hyperband makes a study of its own, which must not see more.
        brackets = [study.pruner._create_bracket_study(study, it) for it in range(3)]
        seen = [it.number for bracket in brackets for it in bracket.get_trials(deepcopy=False)]
        assert set(seen) <= set(numbers)
    assert len(database.storage.get_all_trials(study_id)) == 7


def test_a_study_is_compared_by_one_parameter_from_its_first_trial_on(
    database: Database, claims: Claims
) -> None:
    assert register(database, "study", SNAPSHOT, seed=None, search={}).compare == "kind"
    take(claims)
    with pytest.raises(UsageError, match="was begun with --compare kind, and --compare x deals"):
        register(database, "study", SNAPSHOT, seed=None, search={}, compare="x")
    plain = register(database, "plain", SNAPSHOT, seed=None, search={})
    assert plain.compare is None
    assert register(database, "plain", SNAPSHOT, seed=None, search={}, compare="x").compare == "x"
    other = register(database, "other", SNAPSHOT, seed=None, search={})
    Claims(database, other.study_id).claim(ME, lambda it: it, target=9, most_failed=9)
    with pytest.raises(UsageError, match="was begun without --compare"):
        register(database, "other", SNAPSHOT, seed=None, search={}, compare="kind")


def test_an_opening_is_noted_once_a_confirmation(database: Database, claims: Claims) -> None:
    study_id = find_study(database, "study")
    for name in ("study-confirm", "study-confirm", "study-confirm-2"):
        opening = {"study": name, "id": name, "when": "now", "commit": "c"}
        record_opening(database, study_id, opening)
    stored = read_stored(database, "study")
    assert [it["study"] for it in stored.openings] == ["study-confirm", "study-confirm-2"]
    assert stored.compare == "kind"
    assert read_stored(database, "absent").openings == []


def test_one_more_run_of_a_trial_ends_where_it_was_pruned(claims: Claims) -> None:
    design = one_more({"kind": "b", "x": 0.1}, 123, pruned_at=4)
    assert Design.from_dict(dataclasses.asdict(design)) == design
    taken = take(claims, 1, design)
    assert (taken.arm, taken.block) == (0, 0)
