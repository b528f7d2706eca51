"""A build in parts: in any order, repeated, at once, on any machine; the same bytes, and nothing of two builds."""

import random
import threading

import pytest

from dataset_builder import cli
from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import GenerationSettings
from tests.dataset_builder.building.test_cli_build import contents

PARTS = 10


@pytest.fixture(scope="module")
def settings(recipe_file):
    return BuildSettings(recipe_file, recipes_per_shard=1, generation=GenerationSettings(size=64, batch_size=1))


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    build(settings, out, processes=1)
    return contents(out)


def draw(settings, out, number: int) -> None:
    assert build(settings, out, processes=1, part=f"{number}/{PARTS}") == {}


def test_ten_parts_in_random_order_and_two_of_them_twice_at_once_give_the_same_bytes(settings, whole, tmp_path):
    order = list(range(1, PARTS + 1))
    random.Random(4).shuffle(order)
    twice = [threading.Thread(target=draw, args=(settings, tmp_path, number)) for number in order[:2] * 2]
    for thread in twice:
        thread.start()
    for thread in twice:
        thread.join()
    for number in order[2:]:
        draw(settings, tmp_path, number)
    assert not (tmp_path / "manifest.json").exists()
    manifest = build(settings, tmp_path, processes=1, finish=True)
    assert manifest["rows"] == 18
    assert contents(tmp_path) == whole
    # Both are safe to repeat.
    assert build(settings, tmp_path, processes=1, finish=True) == manifest
    assert build(settings, tmp_path, processes=1, part=f"1/{PARTS}") == manifest
    assert contents(tmp_path) == whole


def run(capsys, *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *map(str, arguments)])
    return int(ended.value.code or 0), capsys.readouterr().err.splitlines()[-1:]


def test_a_missing_part_is_named(settings, recipe_file, tmp_path, capsys):
    flags = (recipe_file, "--size", 64, "--out", tmp_path)
    assert run(capsys, *flags, "--part", "1/2")[0] == 0
    status, (error,) = run(capsys, *flags, "--finish")
    assert status == 2
    assert "lacks 1 of 3 shards: validation-00000-of-00001.parquet; run --part 2/2 again, then --finish" in error
    assert run(capsys, *flags, "--part", "2/2")[0] == 0
    assert run(capsys, *flags, "--finish")[0] == 0


def test_without_any_part_there_is_nothing_to_finish(recipe_file, tmp_path, capsys):
    status, (error,) = run(capsys, recipe_file, "--out", tmp_path, "--size", 64, "--finish")
    assert status == 2
    assert "lacks 3 of 3 shards" in error


def test_parts_of_two_builds_in_one_folder_are_refused_before_the_first_shard(recipe_file, tmp_path, capsys):
    flags = (recipe_file, "--out", tmp_path, "--size", 64, "--part", "1/2")
    assert run(capsys, *flags)[0] == 0
    for path in (tmp_path / ".unfinished" / "data").iterdir():
        path.unlink()  # as if the first part were still at its first shard
    for other in (("--seed", 1), ("--images-per-dish", 2)):
        status, (error,) = run(capsys, *flags, *other)
        assert status == 2
        assert f"{tmp_path} holds parts of a build with other settings" in error
    assert run(capsys, *flags)[0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--part", "0/4"), "--part is '0/4'; give I/N with I from 1 to N"),
        (("--part", "5/4"), "--part is '5/4'"),
        (("--part", "two"), "--part is 'two'"),
        (("--part", "1/2", "--finish"), "--part draws beside other parts"),
        (("--part", "1/2", "--fresh"), "--part draws beside other parts"),
        (("--finish", "--fresh"), "--finish keeps what the parts drew"),
        (("--address", "localhost:6379"), "--address localhost:6379 is that of a Ray cluster; give --engine ray"),
    ],
)
def test_parts_that_make_no_sense_are_one_line(flags, message, recipe_file, tmp_path, capsys):
    status, (error,) = run(capsys, recipe_file, "--out", tmp_path / "out", *flags)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_launcher_runs_the_parts_itself(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInputError, match="a launcher runs all parts itself"):
        build(settings, tmp_path, part="1/2")
