# studies/my_net.py
import keras
from keras import layers
from my_images import data, max_step, metric, my_images, space, steps_per_epoch
from my_images import test, test_images, validate

from tuner.finetune import BatchNormalization, FineTune, Recipe


def build_model():
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="block")(x)
    y = BatchNormalization(name="block_norm")(y)
    y = layers.ReLU(name="block_relu")(layers.Add(name="block_sum")([x, y]))
    return keras.Model(image, layers.Dense(10, name="logits")(layers.Flatten()(y)))


task = FineTune(
    images=my_images,
    model=build_model,
    stages=("stem", "block"),
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
        schedule=lambda done: 1 - done,
    )
