"""Makes picture.jpg of the README: what CocoDataset reads from the folder example/, drawn into its photos.

    python samples/coco/picture.py

The photos come with scikit-image, and are written to example/val2017/ first.
"""

import sys
from pathlib import Path

import numpy as np
import PIL.Image

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

HEIGHT = 360  # pixels, of the picture
GAP = 6  # pixels of white between photos


def write_photos(folder):
    """Writes the photos that example/annotations outlines."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("chelsea", "coffee", "astronaut"):
        PIL.Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")


def draw(dataset, image_id):
    """An image of a data set with its objects, `HEIGHT` pixels high: [HEIGHT, W, 3] uint8."""
    from mrcnn import utils, visualize

    masks, class_ids = dataset.load_mask(image_id)
    result = {"rois": utils.extract_bboxes(masks), "class_ids": class_ids, "masks": masks}
    drawn = visualize.draw_instances(dataset.load_image(image_id), result, dataset.class_names, colors="class")
    image = PIL.Image.fromarray(drawn)
    return np.array(image.resize((round(image.width * HEIGHT / image.height), HEIGHT), PIL.Image.Resampling.LANCZOS))


def main(example=FOLDER / "example", path=FOLDER / "picture.jpg"):
    """Writes the photos into the folder `example`, and the picture of all its images."""
    import coco

    from mrcnn.data.files import atomic

    write_photos(Path(example) / "val2017")
    dataset = coco.CocoDataset()
    dataset.load_coco(example, "val", "2017")
    dataset.prepare()
    white = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    panels = [panel for image_id in dataset.image_ids for panel in (draw(dataset, image_id), white)]
    picture = PIL.Image.fromarray(np.concatenate(panels[:-1], axis=1))
    with atomic(path) as unfinished:
        picture.save(unfinished, format="jpeg", quality=88)


if __name__ == "__main__":
    main()
