"""Zip archives, good, damaged and malicious."""

import errno
import os
import re
import warnings
import zipfile
from collections import namedtuple

import pytest

from mrcnn.engine import archives
from mrcnn.engine.archives import unpack

FILES = {"val2017/a.jpg": b"a" * 1000, "val2017/b.jpg": bytes(range(256)) * 2000, "annotations/x.json": b"{}"}


def make_zip(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        archive.writestr(zipfile.ZipInfo("val2017/"), b"")
        for name, content in files.items():
            archive.writestr(name if name else zipfile.ZipInfo(""), content)
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("verbose", [0, 1])
def test_unpacks_beside_what_is_there(tmp_path, capsys, verbose):
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "own.json").write_bytes(b"[]")
    written = unpack(make_zip(tmp_path / "v.zip"), str(folder), verbose=verbose)
    assert contents(folder) == FILES | {"annotations/own.json": b"[]"} and len(written) == 3
    assert ("unpacking v.zip" in capsys.readouterr().out) == bool(verbose)


def test_unpacking_goes_on_with_what_is_missing(tmp_path):
    archive, folder = make_zip(tmp_path / "v.zip"), tmp_path / "data"
    unpack(archive, folder, verbose=0)
    (folder / "val2017" / "a.jpg").unlink()
    (folder / "val2017" / "b.jpg").write_bytes(b"half")
    assert sorted(path.name for path in unpack(archive, folder, verbose=0)) == ["a.jpg", "b.jpg"]
    assert contents(folder) == FILES and unpack(archive, folder, verbose=0) == []


@pytest.mark.parametrize("name", [
    "../out.txt", "/out.txt", "val/../../out.txt", "..\\out.txt", "C:/out.txt", "val2017/../in.txt", "",
])  # fmt: skip
def test_nothing_is_unpacked_outside_of_the_folder(tmp_path, name):
    """By the name alone, before any look at the disk: that of links is another check, with another message."""
    archive = make_zip(tmp_path / "v.zip", FILES | {name: b"evil"})
    says = rf"v\.zip has a file {re.escape(repr(name))}, which would lie outside of the folder\. Nothing was unpacked"
    with pytest.raises(ValueError, match=says):
        unpack(archive, tmp_path / "deep" / "data", verbose=0)
    assert os.listdir(tmp_path) == ["v.zip"]


def test_links_in_the_folder_do_not_lead_out_of_it(tmp_path):
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (folder / "real").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "lnk").symlink_to(elsewhere)
    archive = make_zip(tmp_path / "v.zip", FILES | {"lnk/deep/evil.txt": b"evil"})
    with pytest.raises(ValueError, match=r"v\.zip has files for .*lnk/deep, but that lies at .*elsewhere/deep, out"):
        unpack(archive, folder, verbose=0)
    assert os.listdir(elsewhere) == [] and contents(folder) == {}
    (folder / "lnk").unlink()
    (folder / "lnk").symlink_to(folder / "real")  # this one stays within
    (tmp_path / "there").symlink_to(folder)
    unpack(archive, tmp_path / "there", verbose=0)
    assert (folder / "real" / "deep" / "evil.txt").read_bytes() == b"evil"


def test_a_link_in_the_place_of_a_half_file_is_not_followed(tmp_path):
    folder, other = tmp_path / "data", tmp_path / "other.txt"
    (folder / "val2017").mkdir(parents=True)
    other.write_bytes(b"mine")
    for name in ("a.jpg", "b.jpg.part"):
        (folder / "val2017" / name).symlink_to(other)
    unpack(make_zip(tmp_path / "v.zip"), folder, verbose=0)
    assert other.read_bytes() == b"mine" and contents(folder) == FILES


def test_links_and_encrypted_files_are_refused(tmp_path):
    link = zipfile.ZipInfo("val2017/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(ValueError, match="link.zip has a link, 'val2017/link'"):
        unpack(tmp_path / "link.zip", tmp_path / "data", verbose=0)
    content = bytearray(make_zip(tmp_path / "v.zip", {"a": b"x"}).read_bytes())
    content[content.index(b"PK\1\2", content.index(b"PK\1\2") + 1) + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(content)
    with pytest.raises(ValueError, match="secret.zip is encrypted"):
        unpack(tmp_path / "secret.zip", tmp_path / "data", verbose=0)
    assert not (tmp_path / "data").exists()


def test_damage_shows_and_leaves_good_files_alone(tmp_path):
    archive = make_zip(tmp_path / "v.zip", compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(FILES["val2017/b.jpg"][:512]) + 9] ^= 1
    archive.write_bytes(content)
    folder = tmp_path / "data"
    (folder / "val2017").mkdir(parents=True)
    (folder / "val2017" / "b.jpg").write_bytes(b"good")
    with pytest.raises(ValueError, match=r"v\.zip is no whole zip archive \(Bad CRC-32.*b\.jpg.*Fetch it again"):
        unpack(archive, folder, verbose=0)
    assert contents(folder) == {"val2017/a.jpg": FILES["val2017/a.jpg"], "val2017/b.jpg": b"good"}


def test_what_is_no_archive(tmp_path):
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    whole = make_zip(tmp_path / "v.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[:len(whole) // 2])
    for name in ("page", "half"):
        with pytest.raises(ValueError, match=f"{name}.zip is no whole zip archive"):
            unpack(tmp_path / f"{name}.zip", tmp_path / "data", verbose=0)
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "missing.zip", tmp_path / "data", verbose=0)
    assert not (tmp_path / "data").exists()


def test_a_disk_without_room_is_not_filled(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 500, 500))
    with pytest.raises(OSError, match=r"needs 513,002 bytes, 500 are free") as caught:
        unpack(make_zip(tmp_path / "v.zip"), tmp_path / "data", verbose=0)
    assert caught.value.errno == 28 and contents(tmp_path / "data") == {}


@pytest.mark.skipif(os.name == "nt", reason="needs the file names of POSIX")
@pytest.mark.parametrize("name, there", [
    ("x" * 300, None), ("x" * 252, None), ("y" * 300 + "/x", None), ("a/" * 3000 + "x", None),
    ("taken/x", "taken"), ("val2017/c", "val2017/c/d"), ("val2017/c", "val2017/c.part/d"),
])  # fmt: skip
def test_names_that_cannot_be_had_are_named_before_anything_is_written(tmp_path, name, there):
    folder = tmp_path / "data"
    if there:
        (folder / there).parent.mkdir(parents=True)
        (folder / there).write_bytes(b"mine")
    archive = make_zip(tmp_path / "v.zip", FILES | {name: b"more"})
    says = rf"v\.zip has a file '{name}', which cannot be written to .*/data/.* \([A-Z].*\)\. Unpack into an empty"
    with pytest.raises(ValueError, match=says):
        unpack(archive, folder, verbose=0)
    assert contents(tmp_path) == {"v.zip": archive.read_bytes()} | ({f"data/{there}": b"mine"} if there else {})
    assert there or not folder.exists()


@pytest.mark.parametrize("number, expected", [(errno.EINVAL, ValueError), (errno.ENOSPC, OSError)])
def test_names_that_are_refused_when_they_are_written(tmp_path, monkeypatch, number, expected):
    """As by disks that know fewer characters; a full disk is no matter of the name."""

    def refuse(source, target):
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(archives.os, "replace", refuse)
    says = r"v\.zip has a file 'val2017/a\.jpg'.*\(Invalid argument\)" if expected is ValueError else "No space"
    with pytest.raises(expected, match=says) as caught:
        unpack(make_zip(tmp_path / "v.zip"), tmp_path / "data", verbose=0)
    assert type(caught.value) is expected and contents(tmp_path / "data") == {}
