"""Whole files, JSON and the lock, on every platform."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dataset_builder
import model_cards
import modeling_flavour
import trainer_scripts
from dataset_builder.errors import BadInputError
from dataset_builder.files import folder_beside, lock_file, machine, read_json, sole_writer, write_json, write_whole

HOLD = """
import sys
from pathlib import Path
from dataset_builder.files import lock_file
lock = lock_file(Path(sys.argv[1]), "held")
print(flush=True)
input()
"""


def test_a_lock_is_refused_while_another_process_holds_it_and_ends_with_that_process(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BadInputError, match="another run is busy; wait for it"):
            lock_file(tmp_path / "lock", "another run is busy; wait for it")
        other.kill()
    lock_file(tmp_path / "lock", "refused").release()
    lock_file(tmp_path / "lock", "refused").release()


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"crème": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert read_json(path, "") == {"crème": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["facts.json"]


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_and_nothing_else(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    here = machine()
    mine = f"x[1].csv.{here}.{os.getpid()}.tmp"
    names = [f"x[1].csv.{here}.{ended.pid}.tmp", mine, "x[1].csv.elsewhere.1.tmp", "a.tmp"]
    for name in names:
        (tmp_path / name).write_text("half")
    with sole_writer(tmp_path / "x[1].csv"):
        assert {one.name for one in tmp_path.iterdir()} == set(names[1:])
    (tmp_path / names[0]).write_text("half")
    with sole_writer(tmp_path):
        assert {one.name for one in tmp_path.iterdir()} == set(names[1:])


def test_a_folder_that_a_killed_process_left_beside_its_output_goes_when_the_next_makes_one(tmp_path):
    program = (
        "import os, sys, pathlib, dataset_builder.files as files\n"
        "with files.folder_beside(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "onnx")], check=False)
    assert len(list(tmp_path.glob("onnx.*/half"))) == 1
    with folder_beside(tmp_path / "onnx") as folder, folder_beside(tmp_path / "onnx") as other:
        assert {folder, other} == set(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON: Expecting"),
        (b"\xff", "cannot be read: it is not UTF-8"),
        (b"[]", "holds no JSON object but list"),
    ],
)
def test_broken_json_is_named_with_what_to_do(tmp_path, content, message):
    path = tmp_path / "facts.json"
    assert read_json(path, "") is None
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=f"{re.escape(message)}.*; build again"):
        read_json(path, "build again")


@pytest.mark.parametrize("package", [dataset_builder, model_cards, modeling_flavour, trainer_scripts])
def test_no_module_needs_what_only_some_platforms_have(package):
    unix_only = {"fcntl", "resource", "pwd", "grp", "termios"}
    needing = []
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            needing += [f"{path.name}: {name}" for name in names if name in unix_only]
    assert needing == []
