"""Real Keras on real digits; one thread, and one base for the whole session."""

import os

os.environ.setdefault("TUNER_THREADS", "1")  # before TensorFlow starts
os.environ.setdefault("TUNER_PRECISION", "float32")  # the same on every machine
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import dataclasses
from types import ModuleType

import optuna
import pytest

from tuner import interrupt
from tuner.finetune import FineTune, Recipe, mnist

from .curves import load_study_file


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder of cached bases that the session shares."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def study_file() -> ModuleType:
    """The study file as the worker loads it."""
    return load_study_file()


@pytest.fixture(scope="session")
def digits():
    return mnist()


@pytest.fixture(scope="session")
def make_task(cache, study_file, digits):
    """Makes the study's task on few digits: 20 batches an epoch, one epoch, 4 steps."""

    def make(**changes) -> FineTune:
        few = {
            "images": lambda: digits.first(2560, 1000),
            "epochs": 1,
            "report_at": (1, 2, 3, 4),
            "base_recipe": Recipe(epochs=1),
        }
        return dataclasses.replace(study_file.task, **(few | changes))

    return make


@pytest.fixture(scope="session")
def task(make_task) -> FineTune:
    """One task for all tests, so that its compiled functions are reused as in a worker."""
    return make_task()


@pytest.fixture
def study():
    return optuna.create_study(pruner=optuna.pruners.NopPruner())


@pytest.fixture(autouse=True)
def _no_request_to_stop():
    yield
    interrupt.clear()
