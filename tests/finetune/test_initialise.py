"""Stages, freezing, and the weights a trial starts from."""

import keras
import numpy as np
import pytest

from tuner.errors import UsageError
from tuner.finetune.initialise import drawn, stages_from_base, with_stages
from tuner.finetune.stages import check_stages, freeze, layers_of

STAGES = ("conv1", "conv2", "conv3", "dense")


@pytest.fixture(scope="module")
def model(study_file):
    return study_file.build_model()


@pytest.fixture(scope="module")
def template(model):
    return [weight.numpy() for weight in model.weights]


def _by_path(model, weights):
    return {w.path.split("/", 1)[1]: v for w, v in zip(model.weights, weights, strict=True)}


def test_a_layer_belongs_to_the_stage_before_its_first_underscore(model):
    names = [layer.name for layer in layers_of(model, ["conv1"])]
    assert names == ["conv1", "conv1_norm", "conv1_relu", "conv1_pool"]


@pytest.mark.parametrize("count", range(5))
def test_freezing_leaves_the_others_trainable(model, count):
    freeze(model, STAGES[:count])
    trainable = {variable.path.split("/")[1] for variable in model.trainable_variables}
    expected = [[stage, f"{stage}_norm"] for stage in STAGES[:3]] + [["dense"]]
    assert trainable == {name for stage in expected[count:] for name in stage} | {"logits"}


def test_stages_that_the_model_lacks_are_refused(model):
    with pytest.raises(UsageError, match="stage 'conv9'"):
        check_stages(model, ["conv1", "conv9"])
    with pytest.raises(UsageError, match="no head is left"):
        check_stages(model, [*STAGES, "logits"])


def test_drawing_leaves_vectors_and_draws_each_kernel_by_seed_and_index(model, template):
    first = _by_path(model, drawn(template, "he_normal", 7))
    again = _by_path(model, drawn(template, "he_normal", 7))
    other = _by_path(model, drawn(template, "he_normal", 8))
    constants = {"bias": 0, "beta": 0, "moving_mean": 0, "gamma": 1, "moving_variance": 1}
    for path, value in first.items():
        np.testing.assert_array_equal(value, again[path])
        kind = path.split("/")[1]
        if kind == "kernel":
            assert not np.array_equal(value, other[path])
        else:
            assert (value == constants[kind]).all()
    assert not np.array_equal(
        first["conv2/kernel"].ravel()[:99], first["conv3/kernel"].ravel()[:99]
    )


def test_a_scheme_is_keras_own(model, template):
    kernel = _by_path(model, drawn(template, "he_normal", 7))["dense/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / kernel.shape[0]), rel=0.01)
    kernel = _by_path(model, drawn(template, "orthogonal", 7))["dense/kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(128), atol=1e-5)


def test_every_init_of_the_study_can_be_drawn(study_file, template):
    for init in study_file.INITS:
        assert len(drawn(template, init, 1)) == len(template)


@pytest.mark.parametrize(
    ("init", "frozen", "expected"),
    [("pretrained", 0, 4), ("pretrained", 2, 4), ("he_normal", 0, 0), ("he_normal", 3, 3)],
)
def test_which_weights_come_from_the_base(model, template, init, frozen, expected):
    base = [np.full_like(value, 7.0) for value in template]
    stages = stages_from_base(init, STAGES, STAGES[:frozen])
    new = drawn(template, init, 1)
    weights = _by_path(model, with_stages(model, new, base, stages))
    for path, value in weights.items():
        stage = path.split("/")[0].split("_")[0]
        assert (value == 7.0).all() == (stage in STAGES[:expected]), path


def test_pretrained_draws_the_head_by_glorot_uniform(model, template):
    head = _by_path(model, drawn(template, "pretrained", 3))["logits/kernel"]
    np.testing.assert_array_equal(
        head, _by_path(model, drawn(template, "glorot_uniform", 3))["logits/kernel"]
    )
    assert np.abs(head).max() <= np.sqrt(6 / (128 + 10))


@pytest.mark.parametrize(
    ("wrong", "right"), [("he_norml", "he_normal"), ("pretraind", "pretrained")]
)
def test_an_unknown_init_names_the_closest(template, wrong, right):
    with pytest.raises(UsageError, match=f"{wrong}.*Did you mean '{right}'"):
        drawn(template, wrong, 1)


def test_an_initialiser_for_other_shapes_is_refused(template):
    with pytest.raises(UsageError, match="'identity' is neither 'pretrained' nor a Keras init"):
        drawn(template, "identity", 1)
    with pytest.raises(UsageError, match="cannot draw a kernel"):
        drawn(template, keras.initializers.Identity(), 1)


def test_the_model_is_a_plain_keras_model(model):
    assert isinstance(model, keras.Sequential)
    assert model.count_params() == 459_050
