"""What comes from outside is bounded, and every error of a library about it is one line with its reason."""

import errno
import json
import os

import huggingface_hub.utils._http as hub_http
import pytest
from huggingface_hub.errors import HfHubHTTPError

from dataset_builder import boundaries
from dataset_builder.boundaries import outside, parse_json, parse_yaml, patiently, read_text
from dataset_builder.errors import BadInputError

# The client library is `httpx` or `httpx2`, depending on the release of huggingface_hub.
httpx = getattr(hub_http, "httpx2", None) or hub_http.httpx


class LibraryError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LibraryError("header\n too large"), "LibraryError: header too large"),
        (KeyError("x"), "KeyError: 'x'"),
        (RecursionError("maximum"), "nested too deeply"),
        (MemoryError(), "more memory"),
        (AttributeError(), "AttributeError"),
        (ValueError("first\x1b[1m"), "first\\x1b[1m"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "not UTF-8"),
    ],
)
def test_every_error_of_a_library_becomes_one_line(error, said):
    with pytest.raises(BadInputError) as caught, outside("cannot read X", "give Y"):
        raise error
    assert str(caught.value).startswith("cannot read X: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("; give Y")
    assert caught.value.__cause__ is error


def test_a_full_disk_is_no_fault_of_what_was_read():
    with pytest.raises(OSError, match="No space"), outside("cannot read X"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_ctrl_c_passes():
    with pytest.raises(KeyboardInterrupt), outside("cannot read X"):
        raise KeyboardInterrupt


def answered(status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "http://x"))
    try:
        raise HfHubHTTPError("", response=response)
    except HfHubHTTPError as cause:
        error = FileNotFoundError("Couldn't find any data file")
        error.__cause__ = cause
        return error


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_the_status_of_the_hub_is_said_instead_of_what_a_library_made_of_it(status):
    with pytest.raises(BadInputError, match=f"the Hub answered {status} "), outside("cannot read X"):
        raise answered(status)


@pytest.mark.parametrize("error", [answered(503), httpx.ReadError("broken"), ConnectionResetError()])
def test_what_may_pass_is_tried_again_and_said(error, monkeypatch, capsys):
    monkeypatch.setattr(boundaries, "FIRST_PAUSE", 0.01)
    tries = []

    def read():
        tries.append(1)
        if len(tries) < 3:
            raise error
        return "rows"

    assert patiently("cannot read X", "", read) == "rows"
    assert len(tries) == 3
    assert capsys.readouterr().err.count("trying again") == 2


@pytest.mark.parametrize(("error", "count"), [(answered(503), 3), (answered(403), 1), (ValueError("x"), 1)])
def test_what_does_not_pass_ends_in_one_line(error, count, monkeypatch):
    monkeypatch.setattr(boundaries, "FIRST_PAUSE", 0.01)
    tries = []

    def read():
        tries.append(1)
        raise error

    with pytest.raises(BadInputError, match="cannot read X"):
        patiently("cannot read X", "", read)
    assert len(tries) == count


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(BadInputError, match="no regular file; go"):
            read_text(tmp_path / name, "go")
    (tmp_path / "large").write_text("x" * 11)
    with pytest.raises(BadInputError, match="larger than"):
        read_text(tmp_path / "large", "go", largest=10)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_text(tmp_path / "loop", "go")
    (tmp_path / "bytes").write_bytes(b"a\xff")
    with pytest.raises(BadInputError, match="not UTF-8"):
        read_text(tmp_path / "bytes", "go")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent", "go")


@pytest.mark.parametrize("depth", [66, 500, 100_000])
def test_deep_json_is_refused(depth):
    with pytest.raises(BadInputError, match=r"too deeply|levels"):
        parse_json("[" * depth + "]" * depth, "X", "go")


@pytest.mark.parametrize("depth", [66, 200, 5000])
def test_deep_yaml_is_refused(depth):
    with pytest.raises(BadInputError, match=r"too deeply|levels"):
        parse_yaml("[" * depth + "]" * depth, "X", "go")


def test_yaml_that_names_one_value_many_times_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(BadInputError, match="values"):
        parse_yaml("\n".join(lines), "X", "go")


def test_ordinary_text_is_read():
    value = {"a": [1, {"b": None}], "c": "d" * 1000}
    assert parse_json(json.dumps(value), "X", "go") == value
    assert parse_yaml("a: [1, {b: null}]", "X", "go") == {"a": [1, {"b": None}]}
