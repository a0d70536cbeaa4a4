"""Every study of `studies/` as it stands, on few images: one trial, to a first report."""

import dataclasses
import importlib.util
import inspect
import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from tuner.errors import UsageError
from tuner.finetune import Recipe, mnist_test
from tuner.search import values_of
from tuner.trial import ClaimedTrial

from .test_readers import write_idx

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.py"))


@pytest.fixture
def clothes(digits, tmp_path, monkeypatch):
    """Files in Fashion-MNIST's format; turned digits stand for clothes."""
    write_idx(tmp_path, "train", digits.train_images[:768, :, ::-1, 0], digits.train_labels[:768])
    images, labels = mnist_test()
    write_idx(tmp_path, "t10k", images[:300, :, ::-1, 0], labels[:300])
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))


def load(path):
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def few_images(task, digits):
    """The task on few images, with a base that is made at once."""
    few = digits.first(640, 500)
    changes = {"epochs": 1, "batch_size": 32, "report_at": (1, 4)}
    changes["base_recipe"] = task.base_recipe and Recipe(epochs=1)
    if task.base_images is None:
        return dataclasses.replace(task, images=lambda: few, **changes)
    return dataclasses.replace(task, base_images=lambda: few, **changes)


GOOD = {"learning_rate": 3e-3, "optimizer": "adam", "init": "pretrained"}
SMALL = {"train_images": 500, "batch_size": 32, "weight_decay": 1e-3}
CHOSEN = {
    "fashion_mnist": [GOOD | {"start": "digits"}],
    "mnist": [GOOD | {"frozen_layers": 2}],
    "mnist_size": [{"filters": 16, "stages": 2, "units": 0, "learning_rate": 3e-3}],
    "mnist_strategies": [
        GOOD | SMALL | {"augmentation": "elastic", "thawing": "one by one", "stage_rate": 0.5},
        GOOD | SMALL | {"init": "he_normal", "norm": "group", "pooling": "strided", "width": 0.5},
    ],
    "paraboloid": [{}],
}
"""What the trials of each study have; the rest is sampled."""


@pytest.mark.parametrize("name", ["mnist_size", "mnist_strategies"])
def test_every_net_of_a_study_can_be_built(name):
    """Each choice of each option of the model, the others as they are by default."""
    module = load(FILES[0].with_name(f"{name}.py"))
    known = dict(module.space)
    if name == "mnist_strategies":
        trial = optuna.create_study().ask({"init": CategoricalDistribution(("zeros",))})
        module.suggest_the_rest(trial)
        known |= trial.distributions
    for option in inspect.signature(module.build_model).parameters:
        for value in values_of(known[option]):
            assert module.build_model(**{option: value}).output_shape == (None, 10)


def test_a_net_that_is_too_large_is_not_trained(digits, cache, monkeypatch):
    module = load(FILES[0].with_name("mnist_size.py"))
    monkeypatch.setattr(module, "task", few_images(module.task, digits))
    study = optuna.create_study(directions=module.direction)
    for filters, too_many in ((32, 120_522), (16, 6_010)):
        study.enqueue_trial({"filters": filters, "stages": 2, "units": 64})
        trial = ClaimedTrial(study, study.ask(fixed_distributions=module.space)._trial_id)
        with pytest.raises(optuna.TrialPruned):
            module.objective(trial)
        assert trial.constraints == {"parameters <= 100,000": too_many}
        assert "seconds" not in trial.user_attrs
        model = module.build_model(filters, 2, 64)
        assert module.task.parameters(filters=filters, stages=2, units=64) == model.count_params()


HOW_TOS = {"digits", "my_images", "my_net"}
"""These are the README's, with images of their own: `tests/e2e/test_howto.py` runs them."""


def test_every_study_is_here():
    assert [path.stem for path in FILES] == sorted({*CHOSEN, *HOW_TOS})


@pytest.mark.parametrize(
    ("name", "chosen"), [(name, chosen) for name in CHOSEN for chosen in CHOSEN[name]]
)
def test_a_trial_of_every_study(name, chosen, digits, cache, clothes, study, tmp_path, monkeypatch):
    module = load(FILES[0].with_name(f"{name}.py"))
    if hasattr(module, "task"):
        monkeypatch.setattr(module, "task", few_images(module.task, digits))
    if hasattr(module, "EPOCHS"):
        monkeypatch.setitem(module.EPOCHS, 500, 2)
    if hasattr(module, "mnist_test"):
        few = digits.first(0, 300)
        monkeypatch.setattr(module, "mnist", lambda: few)
        tested = few.validation_images, few.validation_labels
        monkeypatch.setattr(module, "mnist_test", lambda: tested)
    several = not isinstance(module.metric, str)
    if several:
        study = optuna.create_study(directions=module.direction)
    study.enqueue_trial(chosen)
    trial = ClaimedTrial(study, study.ask(fixed_distributions=module.space)._trial_id)
    trial.outputs = tmp_path
    value = module.objective(trial)
    if several:
        assert len(value) == len(module.metric)
        assert all(math.isfinite(it) for it in value)
    else:
        assert math.isfinite(value)
        assert study.trials[0].intermediate_values
    assert {name: trial.params.get(name, given) for name, given in chosen.items()} == chosen
    if hasattr(module, "test"):
        (model,) = tmp_path.glob("*.keras")
        assert 0.0 <= module.test(model)["test_error"] < 0.9
        assert 0.0 <= module.validate(model)["validation_error"] < 0.9


@pytest.mark.parametrize(("start", "frozen"), [("digits", 2), ("scratch", 0)])
def test_clothes_begin_with_the_stages_of_digits_or_with_none(
    start, frozen, digits, cache, clothes, study, monkeypatch
):
    module = load(FILES[0].with_name("fashion_mnist.py"))
    task = few_images(module.task, digits)
    monkeypatch.setattr(module, "task", task)
    params = {"start": start, "learning_rate": 1e-3}
    params |= {"frozen_layers": frozen} if start == "digits" else {}
    study.enqueue_trial(params)
    trial = study.ask(fixed_distributions=module.space)
    module.objective(trial)
    assert trial.params == params
    trained = {weight.path: weight.numpy() for weight in task._trainer.model.weights}
    base = {
        weight.path: value
        for weight, value in zip(task._trainer.model.weights, task._base.weights, strict=True)
    }
    kept = {path.split("/")[-2] for path in base if (base[path] == trained[path]).all()}
    assert kept == ({"conv1", "conv1_norm", "conv2", "conv2_norm"} if frozen else set())


def test_a_model_of_another_shape_or_with_too_few_outputs_is_refused(digits, clothes, cache):
    module = load(FILES[0].with_name("fashion_mnist.py"))
    few = digits.first(640, 500)
    wide = dataclasses.replace(few, train_images=few.train_images[:, :, :14])
    task = dataclasses.replace(module.task, base_images=lambda: wide)
    with pytest.raises(
        UsageError, match=r"takes images of the shape \(28, 28, 1\), .* \(28, 14, 1\)"
    ):
        task.prepare()
    many = dataclasses.replace(few, n_classes=11)
    task = dataclasses.replace(module.task, base_images=lambda: many)
    with pytest.raises(UsageError, match=r"tells 10 classes apart .* images have 11"):
        task.prepare()
