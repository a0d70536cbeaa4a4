"""What a study may vary, each against what it is said to do."""

import contextlib
import dataclasses
import math

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tuner.errors import UsageError
from tuner.finetune import FineTune, Images, schedules
from tuner.finetune.augment import AUGMENTATIONS, STRETCH, augmentation_of
from tuner.finetune.compiled import Traits, compile_training
from tuner.finetune.initialise import drawn
from tuner.finetune.schedules import SCHEDULES, warmed_up
from tuner.finetune.task import _rows
from tuner.finetune.technique import Technique
from tuner.finetune.training import Plan, Trainer, compiled_loops
from tuner.outcomes import Diverged

STAGES = ("conv1", "conv2", "conv3", "dense")
OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "momentum": lambda rate, **more: keras.optimizers.SGD(rate, momentum=0.9, **more),
    "nesterov": lambda rate, **more: keras.optimizers.SGD(rate, 0.9, nesterov=True, **more),
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
}


@pytest.fixture(scope="module")
def small():
    """A small net on 8 x 8 random images: trainer, and weights to start from."""
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 3
    pictures = generator.integers(0, 256, (96, 8, 8), dtype=np.uint8)
    images = Images.split(pictures, labels, validation=1 / 3, name="own")

    def build():
        return keras.Sequential([
            keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="dense"),
            keras.layers.Dense(3, name="logits"),
        ])  # fmt: skip

    trainer = Trainer(build, images)
    return trainer, trainer.template


def plan(optimizer, **changes):
    given = {"rows": np.arange(64), "epochs": 2, "batch_size": 16, "optimizer": optimizer,
             "schedule": schedules.constant, "frozen": (), "seed": 5}  # fmt: skip
    return Plan(**given | changes)


def trained(small, optimizer, batches, **changes):
    """The weights after so many batches."""
    trainer, start = small
    run = trainer.start(start, plan(optimizer, **changes))
    run.train_to(batches)
    return [weight.numpy() for weight in trainer.model.weights]


def by_keras(small, optimizer, batches, **changes):
    """The same by plain Keras, one batch after the other, without our loop."""
    trainer, start = small
    model = trainer.model
    its_plan = plan(optimizer, **changes)
    run = trainer.start(start, plan(type(optimizer).from_config(optimizer.get_config())))
    order = run._order(0)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=its_plan.label_smoothing
    )
    for rows in order[:batches]:
        images = tf.gather(trainer.whole.train_images, rows)
        labels = tf.one_hot(tf.gather(trainer.train_labels, rows), 3)
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("decay", [None, 0.1])
def test_smoothing_and_weight_decay_are_keras_own(small, smoothing, decay):
    for make in (keras.optimizers.Adam, OPTIMIZERS["momentum"]):
        ours = trained(small, make(0.01, weight_decay=decay), 3, label_smoothing=smoothing)
        theirs = by_keras(small, make(0.01, weight_decay=decay), 3, label_smoothing=smoothing)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_what_is_told_to_each_call_compiles_nothing_new_and_leaves_nothing_behind(small):
    def told(decay, smoothing, rate):
        return trained(
            small, keras.optimizers.AdamW(0.01, weight_decay=decay), 4,
            label_smoothing=smoothing, paces={"conv": rate},
        )  # fmt: skip

    first = told(0.1, 0.2, 0.5)
    before = compiled_loops()
    others = [told(0.3, 0.2, 0.5), told(0.1, 0.1, 0.5), told(0.1, 0.2, 0.3)]
    again = told(0.1, 0.2, 0.5)
    assert compiled_loops() == before
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for changed in others:
        assert any((one != other).any() for one, other in zip(first, changed, strict=True))


@pytest.mark.parametrize("paces", [{}, {"logits": 0.5}])
def test_what_is_excluded_from_decay_is_so_in_every_loop(paces, small):
    trainer, start = small

    def kernels(decay):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=decay)
        optimizer.exclude_from_weight_decay(var_names=["dense"])
        run = trainer.start(start, plan(optimizer, thawing=[(2, "dense")], paces=paces))
        run.train_to(1)
        first = {
            it.path.split("/")[-2]: it.numpy() for it in trainer.model.weights if len(it.shape) > 1
        }
        trainer.start(start, plan(optimizer, paces=paces)).train_to(1)
        then = {
            it.path.split("/")[-2]: it.numpy() for it in trainer.model.weights if len(it.shape) > 1
        }
        return first, then

    for with_decay, without in zip(kernels(0.5), kernels(0.0), strict=True):
        assert (with_decay["logits"] != without["logits"]).any()
        np.testing.assert_array_equal(with_decay["dense"], without["dense"])


def test_an_optimizer_may_serve_many_trials(small):
    """Its learning rate is what it was made with, whatever a schedule did in an earlier trial."""
    trainer, start = small
    optimizer = keras.optimizers.Adam(0.01)
    trainer.start(start, plan(optimizer, schedule=schedules.cosine)).train_to(8)
    run = trainer.start(start, plan(optimizer, frozen=["conv"]))
    assert run.rates == pytest.approx([0.01] * 8)


def test_an_optimizer_with_a_decay_of_its_own_is_not_paced(small):
    trainer, start = small
    muon = keras.optimizers.Muon(0.01, weight_decay=0.1)
    with pytest.raises(UsageError, match="stage_rate cannot be used with Muon"):
        trainer.start(start, plan(muon, paces={"conv": 0.5}))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stage_learns_and_decays_at_its_fraction_of_the_rate(small, optimizer):
    trainer, start = small
    make = OPTIMIZERS[optimizer]
    whole = trained(small, make(0.01, weight_decay=0.1), 1)
    paced = trained(small, make(0.01, weight_decay=0.1), 1, paces={"conv": 0.25, "dense": 0.5})
    fractions = {"conv": 0.25, "dense": 0.5, "logits": 1.0}
    for weight, before, one, other in zip(trainer.model.weights, start, whole, paced, strict=True):
        fraction = fractions[weight.path.split("/")[-2]]
        np.testing.assert_allclose(other - before, fraction * (one - before), rtol=1e-3, atol=1e-7)


def test_stages_thaw_one_after_the_other_with_the_optimizer_begun_anew(small):
    trainer, start = small
    optimizer = keras.optimizers.Adam(0.01)
    run = trainer.start(start, plan(optimizer, thawing=[(2, "dense"), (5, "conv")]))

    def changed():
        return {
            weight.path.split("/")[-2]
            for weight, value in zip(trainer.model.weights, start, strict=True)
            if (weight.numpy() != value).any()
        }

    run.train_to(2)
    assert changed() == {"logits"}
    assert int(run.loop.optimizer.iterations) == 2
    run._thaw()
    assert int(run.loop.optimizer.iterations) == 0  # or adam would not correct its bias
    assert optimizer.built is False  # the user's own is left alone
    run.train_to(4)
    assert changed() == {"logits", "dense"}
    run.train_to(5)
    assert changed() == {"logits", "dense"}
    run.train_to(6)
    assert changed() == {"logits", "dense", "conv"}


def test_the_task_says_when_stages_thaw(task):
    technique = Technique(optimizer=keras.optimizers.SGD(0.1), init="pretrained", frozen_stages=1,
                          schedule=schedules.constant, thaw_epochs=0.25)  # fmt: skip
    assert task._thawing(technique, 20) == [(5, "dense"), (10, "conv3"), (15, "conv2")]
    assert task._paces(0.5) == {"conv1": 0.0625, "conv2": 0.125, "conv3": 0.25, "dense": 0.5}


def seed(number=3):
    return tf.constant([number, 7], tf.int32)


@pytest.fixture(scope="module")
def pictures(digits):
    return digits.train_images[:32].astype(np.float32)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_an_augmentation_follows_from_its_seed(name, pictures):
    augment = tf.function(augmentation_of(name))
    first, again = augment(pictures, seed()).numpy(), augment(pictures, seed()).numpy()
    np.testing.assert_array_equal(first, again)
    other = augment(pictures, seed(4)).numpy()
    assert first.shape == pictures.shape
    assert first.min() >= 0.0
    assert first.max() <= 255.5
    changed = (first != pictures).reshape(len(first), -1).any(axis=1)
    assert changed.mean() > 0.9  # a shift may be by nothing
    assert ((first != other).reshape(len(first), -1).any(axis=1)).mean() > 0.9


def test_a_shift_moves_whole_pixels_by_up_to_two(pictures):
    found = AUGMENTATIONS["shift"](tf.constant(pictures), seed()).numpy()
    moves = set()
    for before, after in zip(pictures, found, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(padded[2 - down : 30 - down, 2 - right : 30 - right], after)
        ]
        assert fits
        moves.add(fits[0])
    assert len(moves) > 10


def test_a_turn_is_about_the_middle(pictures):
    """Against SciPy, at the angles and moves that the augmentation drew."""
    found = AUGMENTATIONS["shift_rotate"](tf.constant(pictures), seed()).numpy()

    def uniform(use):
        own = seed() + tf.constant([use, 0], tf.int32)
        return tf.random.stateless_uniform((32,), own, -1.0, 1.0).numpy()

    downs, rights, angles = uniform(0) * 2.0, uniform(1) * 2.0, np.deg2rad(uniform(2) * 10.0)
    middle = np.array([13.5, 13.5])
    for index, angle in enumerate(angles):
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = np.array([[cosine, sine], [-sine, cosine]])  # of (down, right)
        move = np.array([downs[index], rights[index]])
        expected = scipy.ndimage.affine_transform(
            pictures[index, :, :, 0], turn, middle - turn @ middle - move, order=1
        )
        inner = (slice(3, -3), slice(3, -3))  # SciPy fills between the border and outside otherwise
        np.testing.assert_allclose(found[index, :, :, 0][inner], expected[inner], atol=0.5)


def test_elastic_moves_each_pixel_along_its_field(pictures):
    found = AUGMENTATIONS["elastic"](tf.constant(pictures), seed()).numpy()
    arrows = tf.random.stateless_normal((32, 5, 5, 2), seed()) * STRETCH
    fields = tf.image.resize(arrows, (28, 28), method="bicubic").numpy() * 28
    assert 0.5 < fields.std() < 1.5  # pixels
    places = np.stack(np.meshgrid(np.arange(28), np.arange(28), indexing="ij"))
    for picture, field, after in zip(pictures, fields, found, strict=True):
        padded = np.pad(picture[:, :, 0], 4)  # as if there was 0 all round
        wanted = places + field.transpose(2, 0, 1) + 4
        expected = scipy.ndimage.map_coordinates(padded, wanted, order=1)
        np.testing.assert_allclose(after[:, :, 0], expected, atol=0.5)


@pytest.mark.soak  # tests/finetune/test_checkpoints.py sees that nothing is stored
def test_what_is_augmented_is_neither_validated_nor_stored(task, study):
    trial = study.ask()
    error = run(task, trial, frozen_stages=3, augmentation="shift", train_images=640)
    assert trial.user_attrs["cached_features"] is False
    task._trainer.whole.validation_error()  # as it is
    assert task._trainer.whole.validation_error() == error
    again = study.ask()
    again.set_user_attr("seed", 0)
    assert run(task, again, frozen_stages=3, augmentation="shift", train_images=640) == error
    plain = study.ask()
    plain.set_user_attr("seed", 0)
    run(task, plain, frozen_stages=3, train_images=640)
    assert plain.user_attrs["weights_hash"] != again.user_attrs["weights_hash"]


def run(task, trial, **technique):
    given = {"optimizer": keras.optimizers.Adam(3e-3), "init": "pretrained", "frozen_stages": 3,
             "schedule": schedules.cosine}  # fmt: skip
    return task.run(trial, **given | technique)


def test_fewer_training_images_are_drawn_by_the_seed_in_equal_shares(task, digits):
    images = digits.first(2560, 1000)
    rows = [_rows(images, 500, seed) for seed in (1, 1, 2)]
    assert (rows[0] == rows[1]).all()
    assert (rows[0] != rows[2]).any()
    shares = np.bincount(images.train_labels[rows[0]]) / 500
    np.testing.assert_allclose(shares, np.bincount(images.train_labels) / 2560, atol=1 / 500)
    assert len(set(rows[0])) == 500
    with pytest.raises(UsageError, match="train_images=2561 is more than the 2560"):
        _rows(images, 2561, 1)


def test_epochs_and_batches_are_the_trials_own(task, study):
    trial = study.ask()
    run(task, trial, epochs=3, batch_size=64, train_images=640)
    assert list(study.trials[0].intermediate_values) == [1, 2, 3, 4]  # shares of its training
    technique = Technique(
        optimizer=keras.optimizers.SGD(0.1), init="pretrained", frozen_stages=0,
        schedule=schedules.constant, epochs=3, batch_size=64, train_images=640,
    )  # fmt: skip
    its_plan = task._plan(study.ask(), technique, task._images)
    assert its_plan.epochs * its_plan.batches_per_epoch == 30
    with pytest.raises(UsageError, match="batch_size=641 is more than the 640 training images"):
        run(task, study.ask(), batch_size=641, train_images=640)


def test_a_model_has_the_options_that_the_trial_names(digits, study, cache):
    made = []

    def build(width=1.0):
        made.append(width)
        return keras.Sequential([
            keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(int(8 * width), 3, 4, name="conv"), keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ])  # fmt: skip

    few = digits.first(640, 500)
    task = FineTune(
        images=lambda: few, model=build, stages=("conv",), base_classes=range(5), epochs=1,
        batch_size=32, report_at=(2, 4),
    )  # fmt: skip
    trial = study.ask()
    run(task, trial, model={"width": 0.5}, init="he_normal", frozen_stages=0)
    assert trial.user_attrs["base_hash"] == ""  # nothing was taken of a base, so none was trained
    run(task, study.ask(), model={"width": 0.5}, init="glorot_normal", frozen_stages=0)
    assert made == [0.5]
    run(task, study.ask(), init="he_normal", frozen_stages=0)
    assert made == [0.5, 1.0]
    trial = study.ask()
    run(task, trial, model={"width": 0.5}, frozen_stages=1)
    assert trial.user_attrs["base_hash"] == task._base_of({"width": 0.5}).hash != task._base.hash
    narrow = task._trainer_of({"width": 0.5}, few)
    assert task._trainer.train_labels is narrow.train_labels  # images are held once


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_backbone_with_weights_of_ones_own_is_the_base(digits, study, tmp_path, cache):
    weights = tmp_path / "mine.weights.h5"
    mine = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, pooling="avg", weights=None
    )
    mine.save_weights(weights)

    def build():
        image = keras.Input((28, 28, 1))
        grey = keras.layers.ZeroPadding2D(2)(keras.layers.Rescaling(1 / 127.5, -1)(image))
        whole = keras.applications.MobileNet(
            alpha=0.25, include_top=False, pooling="avg", weights=str(weights),
            input_tensor=keras.layers.Concatenate()([grey] * 3), input_shape=(32, 32, 3),
        )  # fmt: skip
        early = whole.get_layer("conv_pw_2_relu").output  # enough, and compiled at once
        pooled = keras.layers.GlobalAveragePooling2D()(early)
        return keras.Model(image, keras.layers.Dense(10, name="logits")(pooled))

    task = FineTune(
        images=lambda: digits.first(128, 100), model=build, epochs=1,
        batch_size=32, report_at=(1, 4), base_recipe=None,
        stages={"stem": ["conv1*"], "first": ["conv_dw_1*", "conv_pw_1*"],
                "second": ["conv_*_2", "conv_*_2_*"]},
    )  # fmt: skip
    before = list(cache.glob("base-*"))
    assert [kept.what for kept in task.footprint()] == ["checkpoints"]
    task.prepare()
    assert list(cache.glob("base-*")) == before  # nothing was trained
    trial = study.ask()
    with contextlib.suppress(Diverged):  # random weights hardly learn
        run(task, trial, frozen_stages=2)
    assert trial.user_attrs["base_hash"] == task._base.hash
    kept = {}
    for weight in task._trainer.model.weights:
        (stored,) = [it for it in mine.weights if it.path == weight.path] or [None]
        if stored is not None:
            kept[weight.path] = np.array_equal(weight.numpy(), stored.numpy())
    assert kept["conv1/kernel"]
    assert kept["conv1_bn/gamma"]
    assert kept["conv_pw_1/kernel"]
    assert not kept["conv_pw_2/kernel"]


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ({"first": ["conv1*"], "second": ["conv9"]}, "No layer of the model is named 'conv9'"),
        ({"first": ["conv1*"], "second": ["conv*"]}, "layer conv1 is in two stages, first and sec"),
        ({"first": ["*_relu"]}, "No layer of the model belongs to the stage 'first'"),
        ({"first": ["*"]}, "take every layer with weights, so that no head is left"),
    ],
)
def test_stages_that_a_study_names_wrongly(task, stages, says):
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(task, stages=stages).prepare()


def test_layers_that_a_study_names_are_the_stages_of_the_rule(task, study, cache):
    """Named or by the rule, the same layers are the same trial bit for bit."""
    named = {
        "one": ["conv1", "conv1_*"], "two": ["conv2*"], "three": ["conv3*"], "conv1": ["dense"]
    }  # fmt: skip
    found = []
    for its in (task, dataclasses.replace(task, stages=named)):
        trial = study.ask()
        trial.set_user_attr("seed", 5)
        error = run(its, trial, frozen_stages=2)
        found.append((error, trial.user_attrs["weights_hash"]))
    assert found[0] == found[1]


BAD = {
    "augmentation": ("flip", "augmentation='flip' is none of none, shift, shift_rotate, elastic"),
    "label_smoothing": (1.0, "label_smoothing=1.0 is no share"),
    "stage_rate": (0.0, "stage_rate=0.0 is no fraction"),
    "thaw_epochs": (0, "thaw_epochs=0 is no number of epochs"),
    "batch_size": (0, "batch_size=0 is no whole number"),
    "epochs": (1.5, "epochs=1.5 is no whole number"),
    "train_images": (-1, "train_images=-1 is no whole number"),
    "label_smothing": (0.1, "A technique has no 'label_smothing'; did you mean 'label_smoothing'"),
    "schedule": ("cosine", "schedule='cosine' is no function of the fraction done"),
    "optimizer": ("adam", "optimizer='adam' is no Keras optimizer"),
    "frozen_stages": ("2", "frozen_stages='2' is no whole number from 0 up"),
    "model": ({"wdith": 2}, "The model's function does not take wdith"),
    "colour": (0.1, "A technique has no 'colour'; it takes optimizer, init, "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_technique_that_cannot_be_is_one_sentence(name, task, study):
    value, words = BAD[name]
    with pytest.raises(UsageError) as raised:
        run(task, study.ask(), **{name: value})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("label_smoothing", "0.1", "label_smoothing='0.1' is no share"),
        ("thaw_epochs", math.inf, "thaw_epochs=inf is no number"),
        ("augmentation", ["shift"], "is none of none, shift"),
        ("model", {"act": print}, "of the model is no text, number"),
        ("train_images", True, "train_images=True is no whole number"),
    ],
)
def test_values_of_another_type_are_one_sentence_too(name, value, words, task, study):
    with pytest.raises(UsageError, match=words):
        run(task, study.ask(), **{name: value})


def test_models_that_are_no_classifiers_of_images_are_refused(digits):
    few = digits.first(64, 50)
    image = keras.Input((28, 28, 1))
    pixels = keras.Model(image, keras.layers.Conv2D(10, 1, name="logits")(image))
    flat = keras.layers.Flatten()(image)
    two = keras.Model(image, [keras.layers.Dense(10)(flat), keras.layers.Dense(10)(flat)])
    for model in (pixels, two):
        with pytest.raises(UsageError, match="it must have one input, the images, and one output"):
            Trainer(lambda model=model: model, few)


def test_a_model_of_any_image_size_may_be_augmented(digits, study, cache):
    def build():
        return keras.Sequential([
            keras.Input((None, None, 1)), keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="logits"),
        ])  # fmt: skip

    task = FineTune(
        images=lambda: digits.first(128, 100), model=build, stages=("conv",), epochs=1,
        batch_size=32, report_at=(1, 4), base_recipe=None,
    )  # fmt: skip
    study.ask()
    with contextlib.suppress(Diverged):  # it hardly learns
        run(task, study.ask(), frozen_stages=0, augmentation="shift_rotate")


def test_a_technique_that_lacks_something_says_what(task, study):
    with pytest.raises(UsageError, match="The technique lacks optimizer, schedule: say it"):
        task.run(study.ask(), init="pretrained", frozen_stages=0)


def test_stages_of_random_weights_do_not_thaw(task, study):
    with pytest.raises(UsageError, match="stages thaw with init='pretrained' only"):
        run(task, study.ask(), init="he_normal", frozen_stages=0, thaw_epochs=1)


def test_inits_may_be_made_and_may_fail_on_purpose(task, study):
    wide = keras.initializers.RandomNormal(stddev=5.0)
    template = task._trainer.template
    one, same, other = (drawn(template, wide, seed) for seed in (1, 1, 2))
    index = next(index for index, value in enumerate(template) if value.size > 10_000)
    assert one[index].std() == pytest.approx(5.0, rel=0.02)
    np.testing.assert_array_equal(one[index], same[index])
    assert (one[index] != other[index]).any()
    assert all((value == 0).all() for value in drawn(template, "zeros", 1) if value.ndim > 1)


def test_schedules_are_what_their_table_says():
    assert [schedules.step(done) for done in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert schedules.exponential(0.5) == pytest.approx(0.1)
    assert schedules.cosine(0.5) == pytest.approx(0.5)
    assert [schedules.one_cycle(done) for done in (0.0, 0.15, 0.3, 0.65, 1.0)] == pytest.approx(
        [0.04, 0.52, 1.0, 0.500002, 4e-6]
    )
    warmed = warmed_up(schedules.cosine, 0.1)
    assert [warmed(done) for done in (0.0, 0.05, 0.1, 1.0)] == pytest.approx([0, 0.5, 1, 0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_within_the_peak_and_joins_without_a_jump_up(name):
    schedule = SCHEDULES[name]
    values = np.array([schedule(done) for done in np.linspace(0, 1, 1001)])
    assert values.min() >= 0.0
    assert values.max() == pytest.approx(1.0)
    assert np.diff(values).max() < 0.006


def test_a_loop_has_nothing_in_it_that_the_trial_does_not_use(small):
    trainer, _ = small

    def operations(traits):
        loop = compile_training(
            trainer.model, keras.optimizers.SGD(0.1), trainer.whole.train_images, traits
        )
        graph = loop.train.graph.as_graph_def()
        return sum(len(function.node_def) for function in graph.library.function)

    plain = operations(Traits())
    assert operations(Traits(smoothed=True)) > plain
    assert operations(Traits(paced=True)) > plain
    assert operations(Traits(augmentation="elastic")) > plain + 20
