"""The formulas that the README gives for optimizers, inits, schedules and the loss, against Keras.

Each optimizer is written down here as it stands there, and takes three steps beside Keras's own.
"""

import importlib.util
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.conftest import ROOT
from tuner.finetune.schedules import SCHEDULES

RATE = 0.03
GRADIENTS = np.array([[0.5, -2.0, 1e-4], [1.5, 0.25, -3.0], [-0.75, 1.0, 0.125]])
START = np.array([1.0, -0.5, 0.25])
EPS = 1e-7


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "studies" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


MNIST, STRATEGIES = module("mnist"), module("mnist_strategies")


def sgd(w, g, s, t):
    return w - RATE * g


def momentum(w, g, s, t):
    s["v"] = 0.9 * s.get("v", 0.0) - RATE * g
    return w + s["v"]


def nesterov(w, g, s, t):
    s["v"] = 0.9 * s.get("v", 0.0) - RATE * g
    return w + 0.9 * s["v"] - RATE * g


def rmsprop(w, g, s, t):
    s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g**2
    return w - RATE * g / np.sqrt(s["v"] + EPS)


def adam(w, g, s, t):
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    rate = RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return w - rate * s["m"] / (np.sqrt(s["v"]) + EPS)


def adamw(w, g, s, t):
    return adam(w * (1 - RATE * 0.004), g, s, t)


def adagrad(w, g, s, t):
    s["v"] = s.get("v", 0.1) + g**2
    return w - RATE * g / np.sqrt(s["v"] + EPS)


WRITTEN = {it.__name__: it for it in (sgd, momentum, nesterov, rmsprop, adam, adamw, adagrad)}


@pytest.mark.parametrize("name", MNIST.OPTIMIZERS)
def test_an_optimizer_is_its_formula(name):
    optimizer = MNIST.OPTIMIZERS[name](RATE)
    variable = keras.Variable(START, dtype="float64")
    ours, state = START, {}
    for t, gradient in enumerate(GRADIENTS, start=1):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        ours = WRITTEN[name](ours, gradient, state, t)
        np.testing.assert_allclose(variable.numpy(), ours, rtol=3e-6)


@pytest.mark.parametrize("name", STRATEGIES.OPTIMIZERS)
def test_weight_decay_is_taken_off_the_weights_before_the_step(name):
    optimizer = STRATEGIES.OPTIMIZERS[name](RATE, 0.2)
    variable = keras.Variable(START, dtype="float64")
    ours, state = START, {}
    for t, gradient in enumerate(GRADIENTS, start=1):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        ours = WRITTEN[name](ours * (1 - RATE * 0.2), gradient, state, t)
        np.testing.assert_allclose(variable.numpy(), ours, rtol=3e-6)


FAN_IN, FAN_OUT = 600, 400
SPREADS = {  # the variance of a kernel's entries, and their bound
    "glorot_uniform": (2 / (FAN_IN + FAN_OUT), math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "glorot_normal": (2 / (FAN_IN + FAN_OUT), math.inf),
    "he_uniform": (2 / FAN_IN, math.sqrt(6 / FAN_IN)),
    "he_normal": (2 / FAN_IN, math.inf),
    "lecun_normal": (1 / FAN_IN, math.inf),
    "random_normal": (0.05**2, math.inf),
    "wide_normal": (25.0, math.inf),
    "zeros": (0.0, 0.0),
}


@pytest.mark.parametrize("name", SPREADS)
def test_an_init_has_its_variance(name):
    init = STRATEGIES.INITS.get(name, name)
    drawn = np.asarray(keras.initializers.get(init)((FAN_IN, FAN_OUT)))
    variance, bound = SPREADS[name]
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    assert np.abs(drawn).max() <= bound * (1 + 1e-6)
    if math.isfinite(bound):
        assert np.abs(drawn).max() >= 0.99 * bound
    assert abs(drawn.mean()) <= 0.01 * math.sqrt(variance)


def test_orthogonal_columns_are_orthonormal():
    kernel = np.asarray(keras.initializers.get("orthogonal")((FAN_IN, FAN_OUT)))
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(FAN_OUT), atol=1e-5)


def test_schedules_are_their_formulas():
    done = np.linspace(0, 0.999, 101)
    half = lambda share: (1 + math.cos(math.pi * share)) / 2  # noqa: E731
    written = {
        "constant": lambda d: 1.0,
        "step": lambda d: 1.0 if d < 0.5 else 0.1 if d < 0.75 else 0.01,
        "exponential": lambda d: 0.01**d,
        "cosine": half,
        "one_cycle": lambda d: 1 - 0.96 * half(d / 0.3) if d < 0.3 else half((d - 0.3) / 0.7),
    }
    assert written.keys() == SCHEDULES.keys()
    for name, schedule in SCHEDULES.items():
        found = [schedule(it) for it in done]
        np.testing.assert_allclose(found, [written[name](it) for it in done], atol=1e-5)
    ours = [half((d - 0.05) / 0.95) if d >= 0.05 else d / 0.05 for d in done]
    np.testing.assert_allclose([MNIST.schedule(it) for it in done], ours, atol=1e-12)


def test_the_loss_is_its_formula():
    logits, label, smoothing = np.array([2.0, -1.0, 0.5]), 0, 0.1
    p = np.exp(logits) / np.exp(logits).sum()
    target = np.full(3, smoothing / 3)
    target[label] += 1 - smoothing
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    found = float(loss(np.eye(3)[[label]], logits[None]))
    assert found == pytest.approx(-(target * np.log(p)).sum(), rel=1e-6)


def test_the_readme_has_all_that_the_studies_offer():
    text = (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    part = text.split("## What the studies vary")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE))
    offered = {*MNIST.OPTIMIZERS, *MNIST.INITS, *STRATEGIES.INITS, *SCHEDULES}
    assert offered <= named
