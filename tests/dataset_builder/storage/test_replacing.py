"""A build in a store that another one replaces is there, or beside its place, until the other one is finished."""

from pathlib import Path

import fsspec
import pytest

from dataset_builder import cli
from dataset_builder.storage.places import place
from dataset_builder.storage.replacing import SetAside
from tests.dataset_builder.building.test_cli_build import contents

SINGLE = ("manifest.json", "lexicon.csv", ".unfinished/settings.json")
OLD = {"manifest.json": b"old", "lexicon.csv": b"words", "data/a-0.parquet": b"one", "data/b-0.parquet": b"two"}
NEW = {"manifest.json": b"new", "data/a-0.parquet": b"three", "data/b-0.parquet": b"four"}
CHANGES = ("cp_file", "pipe_file", "_rm")


class Killed(BaseException):
    """Nothing may catch it, as nothing catches the end of a process."""


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    for root in ("/replaced", "/built"):
        if system.exists(root):
            system.rm(root, recursive=True)


def killed_at(patch, step: int) -> None:
    """End the process before so many changes of the store."""
    from fsspec.implementations.memory import MemoryFileSystem

    left = [step]

    def watched(name: str):
        original = getattr(MemoryFileSystem, name)

        def change(*given, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return original(*given, **more)

        return change

    for name in CHANGES:
        patch.setattr(MemoryFileSystem, name, watched(name))


def found(memory, root: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{root}/"): memory.cat_file(path) for path in memory.find(root)}


def replace(memory, aside: SetAside, finishes: bool) -> None:
    """Do what a build with `--fresh` does, with one file after the other, or as far as its first shard."""
    aside.settle()
    aside.take()
    memory.pipe_file("/replaced/.unfinished/settings.json", b"settings")
    for name in sorted(NEW)[: None if finishes else 1]:
        memory.pipe_file(f"/replaced/{name}", NEW[name])
    if finishes:
        memory.rm("/replaced/.unfinished", recursive=True)
        aside.drop()


@pytest.mark.parametrize("again", ["nothing", "fresh"])
def test_whenever_it_is_killed_the_former_build_is_there_or_the_new_one_is_finished(memory, monkeypatch, again):
    for step in range(100):
        if memory.exists("/replaced"):
            memory.rm("/replaced", recursive=True)
        for name, content in OLD.items():
            memory.pipe_file(f"/replaced/{name}", content)
        aside = SetAside(place("memory://replaced"), SINGLE, "data")
        with monkeypatch.context() as patch:
            killed_at(patch, step)
            try:
                replace(memory, aside, finishes=True)
                ended = True
            except Killed:
                ended = False
        there = found(memory, "/replaced")
        is_new = {name: there.get(name) for name in NEW} == NEW
        for name, content in OLD.items():
            assert is_new or content in (there.get(name), there.get(f".replaced/{name}")), (step, name)
        # The next command finds the old build, the new one, or a new one that can go on.
        if again == "fresh":
            replace(memory, aside, finishes=True)
            assert found(memory, "/replaced") == NEW, step
        else:
            aside.settle()
            there = found(memory, "/replaced")
            whole = {name: content for name, content in there.items() if not name.startswith(".")}
            goes_on = there.get(".unfinished/settings.json") == b"settings" and ".replaced/whole" in there
            assert whole in (OLD, NEW) or goes_on, (step, there)
        if ended:
            break
    assert step > 15


def test_a_replacement_that_is_killed_and_taken_up_again_ends_as_any_other(memory):
    for name, content in OLD.items():
        memory.pipe_file(f"/replaced/{name}", content)
    aside = SetAside(place("memory://replaced"), SINGLE, "data")
    replace(memory, aside, finishes=False)
    aside.bring_back()
    there = found(memory, "/replaced")
    assert {name: content for name, content in there.items() if not name.startswith(".unfinished")} == OLD


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_fresh_build_in_a_store_that_draws_nothing_leaves_the_one_before(memory, recipe_file, tmp_path, monkeypatch):
    flags = (recipe_file, "--size", 64, "--processes", 1)
    assert run(*flags, "--out", "memory://built") == 0
    before = found(memory, "/built")
    with monkeypatch.context() as patch:
        patch.setattr("dataset_builder.building.plan.Plan.draw_shard", lambda *given: Path("/nowhere").read_bytes())
        assert run(*flags, "--seed", 1, "--out", "memory://built", "--fresh") != 0
    assert {name: one for name, one in found(memory, "/built").items() if not name.startswith(".")} == before
    assert run(*flags, "--seed", 1, "--out", "memory://built", "--fresh") == 0
    assert run(*flags, "--seed", 1, "--out", tmp_path / "local") == 0
    assert found(memory, "/built") == contents(tmp_path / "local")
