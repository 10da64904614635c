"""Coverage-guided fuzzing of the readers of VIA, COCO and weights files, with atheris; `make long-fuzz` runs it.

    python tests/faults/fuzz.py --seconds 600 --report docs/reliability/fuzz.json   all readers, a third each
    python tests/faults/fuzz.py via FOLDER -runs=1000                             one reader, with flags of libFuzzer

A reader may return or raise a ValueError or a FileNotFoundError with the file's name in it. All else, also what takes
more than 20 seconds, ends the run and leaves its input, which belongs into a test. There are 3 GB of memory: HDF5 may
ask for as much as a damaged file announces, and must end in an error where it does not get it.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

READERS = ("via", "coco", "h5")
MEMORY = 3 << 30  # bytes
LIMITS = ("-timeout=20", "-rss_limit_mb=0", "-malloc_limit_mb=0", "-max_len=20000", "-print_final_stats=1")


# ---- one reader, in a process of its own


def target(reader, folder):
    """The function that gives bytes to a reader as its file in a folder, and raises if it behaves badly."""
    from mrcnn.data import coco_files, via
    from mrcnn.engine import h5_layout

    path = Path(folder) / ("via_region_data.json" if reader == "via" else f"instances.{reader}")

    def read_h5():
        with h5_layout.read_file(path) as layers:
            for arrays in layers.values():
                for name, array in arrays.items():
                    if array.size < 10**6:  # as the loader, which knows the shapes it wants
                        h5_layout.read_array(path, name, array)

    def read_via():
        for photo in via.read_folder(folder, keep_empty=True):
            assert via.class_names(photo.regions, "") == [None] * len(photo.regions)
            for region in photo.regions if photo.width else ():
                assert via.draw_shape(region.shape, (photo.height, photo.width)).shape == (photo.height, photo.width)

    def read_coco():
        data = coco_files.read_annotations(path)
        coco_files.make_coco(data)
        images = {image["id"]: image for image in data["images"]}
        for annotation in data["annotations"]:
            size = images[annotation["image_id"]]["height"], images[annotation["image_id"]]["width"]
            if size[0] * size[1] < 10**7:
                (y1, x1, y2, x2), part = coco_files.decode_part(coco_files.to_rle(annotation, *size))
                assert part.shape == (y2 - y1, x2 - x1) and 0 <= y1 <= y2 <= size[0] and 0 <= x1 <= x2 <= size[1]

    read = {"via": read_via, "coco": read_coco, "h5": read_h5}[reader]

    def one(content):
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("error", RuntimeWarning)
                read()
        except (ValueError, FileNotFoundError) as error:
            assert path.name in str(error), f"no name in {error!r}"

    return one


def change(reader, content, rng):
    """Other bytes: the document with some of its parts changed, or else the file damaged."""
    from faults import strategies

    if reader != "h5":
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            pass
        else:
            changes = [strategies.random_mutation(rng) for _ in range(rng.randint(1, 3))]
            return strategies.to_bytes(strategies.mutated(document, changes))
    return strategies.damaged(content, [strategies.random_damage(rng)])


def fuzz(reader, folder, flags):
    """Runs libFuzzer on a reader; does not return."""
    import resource  # which Windows lacks, as it lacks atheris

    import atheris

    with atheris.instrument_imports(include=["mrcnn"]):
        one = target(reader, folder)

    def mutate(content, limit, seed):
        rng = random.Random(seed)
        changed = change(reader, content, rng) if rng.random() < 0.5 else atheris.Mutate(content, limit)
        return changed if len(changed) <= limit else content

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    atheris.Setup([sys.argv[0], *flags], one, custom_mutator=mutate)
    atheris.Fuzz()


# ---- seeds


def write_seeds(reader, corpus, folder):
    """Good files for a reader to begin with, and the photos that VIA's need."""
    import numpy as np
    import PIL.Image

    from mrcnn.engine import h5_layout

    square = [2, 3, 12, 3, 12, 9, 2, 9]
    if reader == "h5":
        import h5py

        arrays = {"conv1": {"conv1/kernel:0": np.ones((2, 3), "f4"), "conv1/bias:0": np.ones(3, "f4")}, "pool": {}}
        h5_layout.write_file(corpus / "ours", arrays)
        with h5py.File(corpus / "keras2", "w") as file:
            root = file.create_group("model_weights")
            root.attrs["layer_names"] = [b"conv1"]
            root.create_group("conv1").attrs["weight_names"] = [b"conv1/bias:0"]
            root["conv1/conv1/bias:0"] = np.ones(3, "f4")
    elif reader == "coco":
        masks = [square], {"size": [20, 30], "counts": [100, 60, 440]}, {"size": [20, 30], "counts": "PPYo0"}
        (corpus / "coco").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "1.png", "width": 30, "height": 20}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{"id": n, "image_id": 1, "category_id": 1, "iscrowd": n % 2, "segmentation": mask,
                             "area": 60, "bbox": [2, 3, 10, 6]} for n, mask in enumerate(masks)],
        }))  # fmt: skip
    else:
        PIL.Image.new("RGB", (27, 20)).save(folder / "a.png")
        shapes = [{"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
                  {"name": "circle", "cx": 5, "cy": 5, "r": 2},
                  {"name": "ellipse", "cx": 5, "cy": 6, "rx": 3, "ry": 2, "theta": 0.5},
                  {"name": "polygon", "all_points_x": square[::2], "all_points_y": square[1::2]}]  # fmt: skip
        regions = [{"shape_attributes": shape, "region_attributes": {"kind": "kite"}} for shape in shapes]
        entry = {"a.png1": {"filename": "a.png", "size": 1, "regions": regions, "file_attributes": {}}}
        numbered = {"a.png1": entry["a.png1"] | {"regions": {str(n): region for n, region in enumerate(regions)}}}
        for name, content in (("two", entry), ("one", numbered), ("project", {"_via_img_metadata": entry})):
            (corpus / name).write_text(json.dumps(content))


# ---- all readers


def run(reader, seconds, found):
    """Fuzzes a reader for some time: its figures, and whether nothing was found."""
    with tempfile.TemporaryDirectory() as made:
        corpus, folder = Path(made) / "corpus", Path(made) / "folder"
        corpus.mkdir()
        folder.mkdir()
        write_seeds(reader, corpus, folder)
        flags = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={found}{os.sep}{reader}-", str(corpus)]
        done = subprocess.run([sys.executable, __file__, reader, str(folder), *flags], capture_output=True, text=True,
                              check=False, errors="replace")
        inputs = len(list(corpus.iterdir()))
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-6000:], sep="\n")
    number = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    return {"cases": int(number.group(1)) if number else 0, "seconds": seconds, "inputs_kept": inputs,
            "coverage": int(covered[-1]) if covered else 0, "found": int(bool(done.returncode))}  # fmt: skip


def main():
    if sys.argv[1:2] and sys.argv[1] in READERS:
        fuzz(sys.argv[1], sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="for all readers together (default: 600)")
    parser.add_argument("--report", help="file for the figures")
    parser.add_argument("--found", default="fuzz-found", help="folder for inputs that went wrong (default: fuzz-found)")
    args = parser.parse_args()
    import reliability

    os.makedirs(args.found, exist_ok=True)
    figures = {reader: run(reader, args.seconds // len(READERS), os.path.abspath(args.found)) for reader in READERS}
    report = {"cases": sum(figure["cases"] for figure in figures.values()), "readers": figures}
    print(json.dumps(report, indent=1))
    if args.report:
        reliability.write(args.report, report)
    if not os.listdir(args.found):
        os.rmdir(args.found)
    sys.exit(any(figure["found"] or not figure["cases"] for figure in figures.values()))


if __name__ == "__main__":
    main()
