# studies/my_images.py
from pathlib import Path

import keras
from keras import layers
from optuna.distributions import FloatDistribution, IntDistribution

from tuner.finetune import FineTune, Images, Recipe, error_of, read_npz

FOLDER = Path(__file__).parent

metric = "val_error"
max_step = 16  # steps are quarter epochs
steps_per_epoch = 4
data = "Digits of the UCI repository, by E. Alpaydin and C. Kaynak; CC BY 4.0"
test_images = 297
space = {
    "learning_rate": FloatDistribution(1e-4, 0.1, log=True),
    "frozen_layers": IntDistribution(0, 2),
}


def my_images():
    return Images.from_npz(FOLDER / "my_images.npz")


def build_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(name="conv_pool"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(10, name="logits"),
        ]
    )


task = FineTune(
    images=my_images,
    model=build_model,
    stages=("conv", "dense"),
    base_classes=range(5),
    base_recipe=Recipe(epochs=20, batch_size=32),
    epochs=4,
    batch_size=32,
    report_at=(1, 4, 8, max_step),
)
prepare = task.prepare
footprint = task.footprint


def objective(trial):
    return task.run(
        trial,
        optimizer=keras.optimizers.Adam(trial.params["learning_rate"]),
        init="pretrained",
        frozen_stages=trial.params["frozen_layers"],
        schedule=lambda done: 1 - done,  # of the learning rate, over the training
    )


def validate(model_file):  # for export
    kept = my_images()
    return {
        "validation_error": error_of(model_file, kept.validation_images, kept.validation_labels)
    }


def test(model_file):  # for confirm: a file that nothing else opens
    return {"test_error": error_of(model_file, *read_npz(FOLDER / "my_images_test.npz"))}
