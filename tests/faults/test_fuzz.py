"""What the fuzzers run, without atheris: their seeds are good files, and changed ones are read or refused."""

import random

import pytest
from faults import fuzz


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_the_readers_take_the_seeds_and_refuse_what_is_changed(tmp_path, reader):
    corpus, folder = tmp_path / "corpus", tmp_path / "folder"
    corpus.mkdir()
    folder.mkdir()
    fuzz.write_seeds(reader, corpus, folder)
    one, rng, changed = fuzz.target(reader, folder), random.Random(1), 0
    for seed in sorted(corpus.iterdir()):
        content = seed.read_bytes()
        one(content)
        for _ in range(40):
            other = fuzz.change(reader, content, rng)
            one(other)
            changed += other != content
    assert changed > 30


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_a_reader_that_behaves_badly_is_found(tmp_path, reader, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no name here")

    for name in ("via.read_folder", "coco_files.read_annotations"):
        monkeypatch.setattr(f"mrcnn.data.{name}", fail)
    monkeypatch.setattr("mrcnn.engine.h5_layout.read_file", fail)
    with pytest.raises(AssertionError, match="no name in"):
        fuzz.target(reader, tmp_path)(b"x")
