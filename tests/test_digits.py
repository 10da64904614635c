"""`python -m mrcnn.parallel_model`, and the digits that it draws."""

import keras
import numpy as np
import pytest

from mrcnn.distribution import digits


def test_digits_are_drawn_by_their_seed():
    images, labels = digits.draw_digits(50, seed=1)
    again, _ = digits.draw_digits(50, seed=1)
    other, _ = digits.draw_digits(50, seed=2)
    assert images.shape == (50, 28, 28, 1) and images.dtype == np.float32 and set(labels) == set(range(10))
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(images, other) and images.min() == 0 and images.max() == 1
    assert ((images > 0.5).sum(axis=(1, 2, 3)) >= 8).all()  # there is something to see on each


def test_the_model_has_a_probability_for_each_class():
    images, _ = digits.draw_digits(3, seed=1)
    probabilities = keras.ops.convert_to_numpy(digits.build_model(images, 10)(images))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_difference_is_seen(capsys):
    one = ([1.0] * 12, [np.zeros(3)])
    assert digits.report(one, one)
    assert not digits.report(one, ([1.0, 1.0001, *[1.0] * 10], [np.zeros(3)]))  # too early to be rounding
    assert digits.report(one, ([*[1.0] * 11, 1.001], [np.full(3, 0.01)]))
    assert not digits.report(one, ([*[1.0] * 11, 1.1], [np.zeros(3)]))
    assert "of a weight at the end 1.0e-02" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--devices", "1"], ["--steps", "0"], ["--devices", "two"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        digits.main(arguments)
    assert "--devices" in capsys.readouterr().err


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has one device, and says so")
def test_too_many_gpus(capsys):
    with pytest.raises(SystemExit, match="2"):
        digits.main(["--devices", "99", "--gpus"])
    assert "--devices 99: found " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_learn_as_one(run_python, backend):
    printed = run_python("import runpy, sys\nsys.argv = ['parallel_model', '--steps', '40']\n"
                         "try:\n    runpy.run_module('mrcnn.parallel_model', run_name='__main__')\n"
                         "except SystemExit as end:\n    assert not end.code", backend)  # fmt: skip
    assert f"Backend {backend}; devices: cpu:0, cpu:1" in printed and "The same training." in printed


@pytest.mark.slow
@pytest.mark.backend
def test_torch_says_what_to_use(run_python):
    code = ("from mrcnn.distribution import digits\ntry:\n    digits.main([])\n"
            "except SystemExit as end:\n    print(end.code)")  # fmt: skip
    assert run_python(code, "torch").strip().endswith("2")
