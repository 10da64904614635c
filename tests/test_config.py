import functools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mrcnn
from mrcnn.config import COMPUTED, SETTINGS, Config


def make(**settings):
    """An instance of a subclass with these settings, small enough to build."""
    small = {"NAME": "test", "NUM_CLASSES": 3, "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128}
    return type("TestConfig", (Config,), small | settings)()


def test_computed_settings():
    config = make(GPU_COUNT=2, IMAGES_PER_GPU=3, NUM_CLASSES=7, IMAGE_MAX_DIM=256, IMAGE_CHANNEL_COUNT=1)
    assert config.BATCH_SIZE == 6
    assert config.IMAGE_SHAPE.tolist() == [256, 256, 1]
    assert config.IMAGE_META_SIZE == 1 + 3 + 3 + 4 + 1 + 7


def test_crop_takes_the_smaller_side():
    assert make(IMAGE_RESIZE_MODE="crop", IMAGE_MAX_DIM=512).IMAGE_SHAPE.tolist() == [128, 128, 3]


@pytest.mark.parametrize("mode", ["square", "crop", "pad64", "none"])
def test_every_mode_can_be_built(mode):
    make(IMAGE_RESIZE_MODE=mode).check_model()


def test_default_settings_lack_only_a_name():
    with pytest.raises(ValueError, match=r"Config\.NAME = None"):
        Config().check_model()


def backbone(input_image, stage5=True, train_bn=None):
    return [input_image] * (5 if stage5 else 4)


class WithFunctions(Config):
    NAME = "functions"

    def BACKBONE(input_image, stage5=True, train_bn=None):
        return [input_image]

    COMPUTE_BACKBONE_SHAPE = lambda image_shape: [image_shape]  # noqa: E731


def test_functions_in_the_class_body_stay_functions():
    config = WithFunctions()
    assert config.BACKBONE("image", train_bn=False) == ["image"]
    assert config.COMPUTE_BACKBONE_SHAPE((64, 64, 3)) == [(64, 64, 3)]
    config.check_model()


@pytest.mark.parametrize("function", [backbone, staticmethod(backbone), functools.partial(backbone, train_bn=False)])
def test_callables_stay_callables(function):
    config = make(BACKBONE=function, COMPUTE_BACKBONE_SHAPE=len)
    assert config.BACKBONE("image", stage5=False) == ["image"] * 4
    assert type(config).BACKBONE("image") == ["image"] * 5
    config.check_model()


WRONG_TYPES = {
    "NAME": 3,
    "SEED": "1",
    "IMAGES_PER_GPU": 1.5,
    "STEPS_PER_EPOCH": 100 / 2,
    "NUM_CLASSES": "3",
    "BACKBONE": 50,
    "COMPUTE_BACKBONE_SHAPE": [[32, 32]],
    "RPN_ANCHOR_SCALES": 32,
    "RPN_ANCHOR_RATIOS": [1, "2"],
    "PRECISION": 16,
    "JIT": 1,
    "USE_MINI_MASK": 1,
    "MINI_MASK_SHAPE": 56,
    "MASK_SHAPE": [28],
    "IMAGE_RESIZE_MODE": None,
    "IMAGE_MAX_DIM": True,
    "MEAN_PIXEL": 127.5,
    "RPN_BBOX_STD_DEV": np.ones((2, 2)),
    "LEARNING_RATE": "0.1",
    "WEIGHT_DECAY": float("nan"),
    "LOSS_WEIGHTS": {"rpn_class_loss": -1},
    "TRAIN_BN": "no",
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_wrong_type_is_refused_when_the_config_is_made(name):
    with pytest.raises(ValueError, match=rf"(?s)TestConfig\.{name} = .*must be"):
        make(**{name: WRONG_TYPES[name]})


def test_numpy_numbers_and_arrays_are_as_good():
    make(
        NUM_CLASSES=np.int64(3),
        LEARNING_RATE=np.float32(0.01),
        MEAN_PIXEL=[1, 2, 3],
        RPN_ANCHOR_SCALES=np.array([8, 16, 32, 64, 128]),
        MASK_SHAPE=(28, 28),
    ).check_model()


IMPOSSIBLE = {
    "BACKBONE": ("resnet151", "Did you mean 'resnet101'"),
    "BACKBONE_STRIDES": ([4, 8, 16, 32], "resnet101 has the strides"),
    "BBOX_STD_DEV": ([0.1, 0.1], "four values"),
    "DETECTION_MIN_CONFIDENCE": (70, "between 0 and 1"),
    "GPU_COUNT": (0, "greater than 0"),
    "IMAGE_CHANNEL_COUNT": (1, "MEAN_PIXEL"),
    "IMAGE_MAX_DIM": (100, "Use 64 or 128"),
    "GRADIENT_ACCUMULATION": (3, "must divide STEPS_PER_EPOCH = 100"),
    "IMAGE_RESIZE_MODE": ("sqare", "Did you mean 'square'"),
    "LOSS_WEIGHTS": ({"rpn_clas_loss": 1.0}, "Did you mean 'rpn_class_loss'"),
    "MASK_SHAPE": ([28, 14], "doubled once or more"),
    "MEAN_PIXEL": ([127.0], "IMAGE_CHANNEL_COUNT = 3"),
    "MINI_MASK_SHAPE": (None, "USE_MINI_MASK = False"),
    "NAME": ("a/b", "letters, digits"),
    "NUM_CLASSES": (0, "greater than 0"),
    "RPN_ANCHOR_RATIOS": ([], "greater than 0"),
    "RPN_ANCHOR_SCALES": ((32, 64, 128), "five values"),
    "RPN_BBOX_STD_DEV": ([0.1, 0.1, 0.2, 0], "greater than 0"),
    "PRECISION": ("bf16", "must be one of ('float32', 'bfloat16'). Did you mean 'bfloat16'"),
    "JIT": ("on", "must be one of ('auto', True, False)"),
    "ROI_POSITIVE_RATIO": (0, "TRAIN_ROIS_PER_IMAGE = 200"),
    "STEPS_PER_EPOCH": (-5, "greater than 0"),
    "TRAIN_ROIS_PER_IMAGE": (3, "less than one, but the heads learn from positive regions"),
    "WEIGHT_DECAY": (-0.1, "0 or more"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_setting_is_refused_when_a_model_is_built(name):
    value, remedy = IMPOSSIBLE[name]
    config = make(**{name: value})
    with pytest.raises(ValueError, match=r"TestConfig\.[A-Z_]+ = ") as error:
        config.check_model()
    assert name in str(error.value) and remedy in str(error.value)


@pytest.mark.parametrize("mode", ["crop", "pad64"])
@pytest.mark.parametrize("side", [100, None])
def test_smaller_side_counts_where_the_mode_uses_it(mode, side):
    with pytest.raises(ValueError, match=r"IMAGE_MIN_DIM = .* multiple of 64"):
        make(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=side).check_model()


@given(st.integers(1, 40), st.integers(1, 6))
def test_every_doubling_of_the_mask_pool_is_a_mask_shape(pool, doublings):
    side = pool * 2**doublings
    make(MASK_POOL_SIZE=pool, MASK_SHAPE=[side, side]).check_model()
    with pytest.raises(ValueError, match="MASK_SHAPE"):
        make(MASK_POOL_SIZE=pool, MASK_SHAPE=[side + 1, side + 1]).check_model()


@pytest.mark.parametrize("mode", ["crop", "pad64", "none"])
def test_larger_side_may_be_none_where_no_mode_uses_it(mode):
    config = make(IMAGE_RESIZE_MODE=mode, IMAGE_MAX_DIM=None)
    config.check_model()
    config.display()
    assert config.IMAGE_SHAPE.tolist() == [128, 128, 3]
    with pytest.raises(ValueError, match=r"IMAGE_MAX_DIM = None: .*\"square\" needs a multiple of 64"):
        make(IMAGE_MAX_DIM=None).check_model()


def test_none_turns_off_as_zero_does():
    make(DETECTION_MIN_CONFIDENCE=None, GRADIENT_CLIP_NORM=None).check_model()


def test_callable_backbone_needs_its_shapes():
    with pytest.raises(ValueError, match="COMPUTE_BACKBONE_SHAPE = None"):
        make(BACKBONE=backbone).check_model()


def test_settings_changed_too_late_are_noticed():
    config = make()
    config.NUM_CLASSES = 9
    with pytest.raises(ValueError, match=r"IMAGE_META_SIZE = 15.*Set these in the class"):
        config.check_model()


def test_typo_gets_a_hint():
    with pytest.warns(UserWarning, match="Did you mean PRECISION"):
        make(PRECISON="bfloat16")
    with pytest.warns(UserWarning, match="Did you mean IMAGES_PER_GPU"):
        make(IMAGE_PER_GPU=4)
    with pytest.warns(UserWarning, match="BATCH_SIZE has no effect"):
        make(BATCH_SIZE=4)


def test_own_and_future_settings_are_welcome():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = make(JIT="auto", USE_EMPTY_IMAGES=False, CLASS_FOLDERS=["a"], note="mine")
    assert config.to_dict()["CLASS_FOLDERS"] == ["a"] and config.to_dict()["note"] == "mine"


def test_to_dict_holds_everything_and_copies():
    config = make()
    settings = config.to_dict()
    assert set(SETTINGS) | set(COMPUTED) == set(settings)
    settings["LOSS_WEIGHTS"]["rpn_class_loss"] = 0
    settings["MEAN_PIXEL"][0] = 0
    assert Config.LOSS_WEIGHTS["rpn_class_loss"] == 1.0 and Config.MEAN_PIXEL[0] == 123.7


def test_display_prints_each_setting_once(capsys):
    config = make(BACKBONE=backbone, COMPUTE_BACKBONE_SHAPE=len)
    config.display()
    lines = capsys.readouterr().out.splitlines()
    for name in (*SETTINGS, *COMPUTED):
        assert sum(line.startswith(f"{name:30} ") for line in lines) == 1
    assert f"{'NUM_CLASSES':30} 3" in lines
    assert f"{'BACKBONE':30} backbone" in lines
    assert any(mrcnn.__version__ in line and mrcnn.__path__[0] in line for line in lines[-2:])


def test_memory_estimate_follows_the_settings():
    small, large = make().estimate_memory(), make(IMAGE_MAX_DIM=1024).estimate_memory()
    assert all(0.1 < few < many < 20 for few, many in zip(small, large, strict=True))
    assert make(IMAGES_PER_GPU=8).estimate_memory()[0] > small[0] > small[1]
    halved = make(PRECISION="bfloat16", IMAGES_PER_GPU=4).estimate_memory()
    assert halved == pytest.approx(small) and make(PRECISION="bfloat16").estimate_memory()[0] < small[0]
