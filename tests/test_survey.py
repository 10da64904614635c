"""What is counted of a data set, and what is found wrong with it."""

import re

import numpy as np
import pytest
from drawn import Drawn, truth

from mrcnn.config import Config
from mrcnn.data.survey import find_problems, survey


class Damaged(Drawn):
    """Its last image cannot be read."""

    def load_image(self, image_id):
        if image_id == len(self.image_info) - 1:
            raise ValueError("no image file")
        return super().load_image(image_id)


def problems(dataset, scale=1, anchor_scales=(8, 16), most_objects=3):
    found = find_problems(survey(dataset), lambda fact: scale, anchor_scales, most_objects)
    return {problem.name: (problem.image_ids, problem.objects) for problem in found if problem.image_ids}


def test_facts():
    dataset = Damaged(truth((1, 2, 3, 12, 30), (-2, 0, 0, 64, 80)), truth(), truth())
    first, second, last = survey(dataset)
    assert (first.image_id, first.height, first.width, first.error) == (0, 64, 80, "")
    np.testing.assert_array_equal(first.class_ids, [1, -2])
    np.testing.assert_array_equal(first.boxes, [(2, 3, 12, 30), (0, 0, 64, 80)])
    np.testing.assert_array_equal(first.areas, [270, 64 * 80])
    np.testing.assert_array_equal(second.mean_color, [1, 1, 1])
    assert second.boxes.shape == (0, 4) and second.areas.shape == (0,)
    assert last.error == "ValueError: no image file"
    assert [fact.image_id for fact in survey(dataset, [1, 0], workers=1)] == [1, 0]


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (np.full((64, 80), 50, np.uint8), [50] * 3),
        (np.full((64, 80, 4), (10, 20, 30, 255), np.uint8), [10, 20, 30]),
        (np.full((64, 80, 3), 0.4), [102] * 3),
    ],
)
def test_images_count_as_what_the_network_sees(image, color):
    class Other(Drawn):
        def load_image(self, image_id):
            return image

    dataset = Other(truth((1, 2, 3, 12, 30)))
    (fact,) = survey(dataset)
    assert (fact.height, fact.width, fact.error) == (64, 80, "")
    np.testing.assert_allclose(fact.mean_color, color)
    (fact,) = survey(dataset, channels=7)
    assert "where 7 are expected" in fact.error


def test_a_sound_data_set_has_no_problems():
    assert problems(Drawn(truth((1, 2, 3, 12, 15), (2, 20, 20, 40, 44)), truth((3, 0, 0, 9, 9)))) == {}


def test_images_with_problems():
    many = [(1, 10 * n, 10 * n, 10 * n + 9, 10 * n + 9) for n in range(4)]
    found = problems(Damaged(truth(), truth((-1, 0, 0, 30, 30)), truth(*many), truth()))
    assert found == {
        "image or masks cannot be read": ([3], 0),
        "no objects": ([0], 0),
        "nothing but crowds": ([1], 0),
        "more than 3 objects": ([2], 0),
        "crowd": ([1], 1),
    }


def test_settings_that_are_named_exist():
    texts = " ".join(f"{problem.name} {problem.consequence}" for problem in find_problems([], None, (8,), 3))
    assert [name for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", texts) if not hasattr(Config, name)] == []


def test_objects_with_problems():
    objects = (1, 0, 0, 0, 0), (1, 0, 0, 10, 10), (2, 0, 0, 10, 10), (1, 0, 0, 10, 10), (1, 0, 0, 64, 64)
    found = problems(Drawn(truth(*objects), truth((1, 0, 0, 3, 4)), truth((1, 20, 0, 28, 60))), most_objects=9)
    assert found == {
        "empty mask": ([0], 1),
        "too small for the anchors (below 4 pixels)": ([1], 1),
        "too large for the anchors (above 32 pixels)": ([0], 1),
        "more than 4 times as long as wide": ([2], 1),
        "same class and box as another": ([0], 1),
    }


def test_objects_are_judged_at_the_size_that_the_network_sees():
    dataset = Drawn(truth((1, 0, 0, 8, 8), (1, 20, 20, 21, 60)))
    assert problems(dataset, 0.25) == {
        "vanishes when resized": ([0], 1),
        "too small for the anchors (below 4 pixels)": ([0], 1),
    }
    assert set(problems(dataset, 5)) == {"too large for the anchors (above 32 pixels)",
                                         "more than 4 times as long as wide"}  # fmt: skip
