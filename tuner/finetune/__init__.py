"""Fine-tuning Keras image models: what a study file imports, and the trainer behind it.

Only this package imports Keras and TensorFlow.
"""

from tuner.finetune import device
from tuner.finetune.batch_norm import BatchNormalization
from tuner.finetune.images import Images, mnist, mnist_test
from tuner.finetune.keras_fit import EpochReporter
from tuner.finetune.model_file import error_of
from tuner.finetune.pretrained import Recipe
from tuner.finetune.task import FineTune
from tuner.finetune.training import compiled_loops

__all__ = [
    "BatchNormalization",
    "EpochReporter",
    "FineTune",
    "Images",
    "Recipe",
    "compiled_loops",
    "device",
    "error_of",
    "mnist",
    "mnist_test",
]
