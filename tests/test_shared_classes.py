"""Sources that share classes: COCO with other photos, and two folders with ids of their own."""

import numpy as np
import pytest
import tiny
from coco_folders import annotation, coco, make_folder


class StreetDataset(coco.CocoDataset):
    """COCO and photos with boxes, in one data set."""

    def load_street(self, count):
        self.add_class("street", 5, "lamp")
        self.add_class("street", 6, "person")
        for number in range(count):
            self.add_image("street", number, path=None)

    def load_image(self, image_id):
        has_file = self.image_info[image_id]["path"] is not None
        return super().load_image(image_id) if has_file else np.zeros((20, 30, 3), np.uint8)

    def load_mask(self, image_id):
        if self.image_info[image_id]["source"] != "street":
            return super().load_mask(image_id)
        masks = np.zeros((20, 30, 2), bool)
        masks[2:12, 3:9, 0] = masks[5:18, 12:28, 1] = True
        return masks, np.array([self.map_source_class_id("street.6"), self.map_source_class_id("street.5")])


@pytest.mark.parametrize("coco_first", [True, False])
def test_sources_train_under_shared_class_ids(tmp_path, coco_first):
    from mrcnn import model as modellib

    folder = make_folder(tmp_path, [annotation(1, 1, 1), annotation(2, 1, 3), annotation(3, 1, 8)])
    dataset = StreetDataset()
    loaders = [
        lambda: dataset.load_coco(folder, "val", "2017", class_map={1: "person", 3: "vehicle", 8: "vehicle"}),
        lambda: dataset.load_street(1),
    ]
    for load_one in loaders if coco_first else loaders[::-1]:
        load_one()
    dataset.prepare()
    assert sorted(dataset.class_names) == ["BG", "lamp", "person", "vehicle"]
    person, lamp, vehicle = map(dataset.class_names.index, ("person", "lamp", "vehicle"))
    assert dataset.map_source_class_id("coco.1") == dataset.map_source_class_id("street.6") == person
    assert dataset.map_source_class_id("coco.8") == dataset.map_source_class_id("coco.3") == vehicle
    assert (dataset.get_source_class_id(person, "coco"), dataset.get_source_class_id(person, "street")) == (1, 6)
    with pytest.raises(ValueError, match="comes from source 'street'"):
        dataset.get_source_class_id(lamp, "coco")
    assert dataset.source_class_ids["coco"] == sorted([0, person, vehicle])
    assert dataset.source_class_ids["street"] == sorted([0, person, lamp])
    config = tiny.config(IMAGES_PER_GPU=1)
    batches = modellib.DataGenerator(dataset, config, shuffle=False)
    of_coco, of_street = (batches.batch(i)[0] for i in ((0, 2) if coco_first else (1, 0)))
    assert of_coco[4].tolist() == [[person, vehicle, vehicle, 0]]
    assert np.flatnonzero(of_coco[1][0, 12:]).tolist() == sorted([0, person, vehicle])
    assert of_street[4].tolist() == [[person, lamp, 0, 0]]
    assert np.flatnonzero(of_street[1][0, 12:]).tolist() == sorted([0, person, lamp])
    assert [a["category_id"] for a in dataset.coco_annotations(0 if coco_first else 1)] == [person, vehicle, vehicle]
    assert dataset.coco_annotations(2 if coco_first else 0) is None


def test_two_folders_with_ids_of_their_own(tmp_path):
    first = make_folder(tmp_path / "a")
    second = make_folder(tmp_path / "b", [annotation(1, 1, 1), annotation(2, 1, 2)],
                         categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "human"}])  # fmt: skip
    dataset = coco.CocoDataset()
    dataset.load_coco(first, "val", "2017")
    with pytest.raises(ValueError, match="class 1 of source 'coco' is 'person' already, and cannot be 'dog' too"):
        dataset.load_coco(second, "val", "2017")
    dataset.load_coco(second, "val", "2017", class_map={2: "person"}, source="zoo")
    dataset.prepare()
    assert dataset.class_names == ["BG", "person", "car", "truck", "dog"]
    assert dataset.load_mask(2)[1].tolist() == [4, 1] and dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.sources == ["", "coco", "zoo"] and dataset.image_reference(2) == ""
    with pytest.raises(ValueError, match="has no category 9"):
        dataset.load_coco(second, "val", "2017", class_map={9: "person"}, source="zoo")
