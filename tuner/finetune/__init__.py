"""Fine-tuning Keras image models: what a study file imports, and the trainer behind it.

Only this package imports Keras and TensorFlow.
"""

from tuner.finetune import device
from tuner.finetune.augment import AUGMENTATIONS
from tuner.finetune.batch_norm import BatchNormalization
from tuner.finetune.images import Images
from tuner.finetune.keras_fit import EpochReporter
from tuner.finetune.model_file import error_of
from tuner.finetune.packaged import mnist, mnist_test
from tuner.finetune.pretrained import Recipe
from tuner.finetune.readers import classes_of, read_directory, read_idx, read_keras, read_npz
from tuner.finetune.schedules import SCHEDULES, warmed_up
from tuner.finetune.task import FineTune
from tuner.finetune.technique import Technique
from tuner.finetune.training import compiled_loops

__all__ = [
    "AUGMENTATIONS",
    "SCHEDULES",
    "BatchNormalization",
    "EpochReporter",
    "FineTune",
    "Images",
    "Recipe",
    "Technique",
    "classes_of",
    "compiled_loops",
    "device",
    "error_of",
    "mnist",
    "mnist_test",
    "read_directory",
    "read_idx",
    "read_keras",
    "read_npz",
    "warmed_up",
]
