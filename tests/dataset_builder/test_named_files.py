"""A name in a table opens files of its own folder, and nothing else of the reader's machine."""

import os

import pytest
from PIL import Image

from dataset_builder.named_files import MOST_BYTES, NamedFile, RefusedFileError, check_pixels, resolve


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "private.jpg").write_bytes(b"private")
    inside = tmp_path / "set"
    (inside / "sub [v1]*").mkdir(parents=True)
    (inside / "a.jpg").write_bytes(b"a")
    (inside / "sub [v1]*" / "b c.jpg").write_bytes(b"b")
    (inside / "link.jpg").symlink_to(tmp_path / "private.jpg")
    (inside / "inner.jpg").symlink_to(inside / "a.jpg")
    (inside / "loop.jpg").symlink_to(inside / "loop.jpg")
    (inside / "up").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe.jpg")
    return inside


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "sub [v1]*/b c.jpg", "sub [v1]*/../a.jpg", "inner.jpg"])
def test_names_inside_the_folder_are_opened(folder, name):
    assert NamedFile(folder, name).read() in (b"a", b"b")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../private.jpg", "outside its folder"),
        ("sub [v1]*/../../private.jpg", "outside its folder"),
        ("link.jpg", "outside its folder"),
        ("up/private.jpg", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("/dev/zero", "outside its folder"),
        ("pipe.jpg", "no regular file"),
        ("", "no regular file"),
        ("sub [v1]*", "no regular file"),
        ("none.jpg", "missing"),
        ("a.jpg/b.jpg", "missing"),
        ("a\0.jpg", "of a name that no file can have"),
        ("\ud83c.jpg", "of a name that no file can have"),
        ("x" * 5000, "of a name that no file can have"),
        ("loop.jpg", "of a name that no file can have"),
    ],
)
def test_other_names_are_refused_with_a_reason(folder, name, reason):
    with pytest.raises(RefusedFileError, match=reason):
        NamedFile(folder, name).read()


def test_outside_is_opened_where_the_user_means_it_but_no_device(folder, tmp_path):
    assert NamedFile(folder, "../private.jpg").read(allow_outside=True) == b"private"
    assert NamedFile(folder, "link.jpg").read(allow_outside=True) == b"private"
    for name in ("/dev/zero", "pipe.jpg"):
        with pytest.raises(RefusedFileError, match="no regular file"):
            resolve(name, folder, allow_outside=True)


def test_files_and_pictures_of_any_size_are_not_read(folder):
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(RefusedFileError, match="of more than 128 MB"):
        NamedFile(folder, "large.jpg").read()
    with pytest.raises(RefusedFileError, match="of more than 100 megapixels"):
        check_pixels(Image.new("1", (20_000, 20_000)))


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "elsewhere").symlink_to(folder)
    assert NamedFile(tmp_path / "elsewhere", "a.jpg").read() == b"a"
