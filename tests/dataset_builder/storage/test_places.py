"""Folders in a store, by URL: builds, repeats, audits and refusals, without secrets in any message."""

import json
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from dataset_builder import cli
from dataset_builder.building.build import build
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.errors import BadInputError
from dataset_builder.hub_data import load_tables
from dataset_builder.importers import import_table
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing.audit import audit
from dataset_builder.storage.places import (
    check_writable,
    files_in,
    is_url,
    on_disk,
    opened,
    place,
    reachable,
    store_new,
    store_whole,
    without_secrets,
)
from tests.dataset_builder.building.test_cli_build import contents


@pytest.fixture
def memory():
    """The file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def stored(system, root: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_build_in_a_store_has_the_bytes_of_one_in_a_folder(memory, recipe_file, tmp_path, monkeypatch):
    settings = BuildSettings(recipe_file, recipes_per_shard=3, generation=GenerationSettings(size=64, batch_size=2))
    build(settings, tmp_path / "local", processes=1)
    out = place("memory://sets/one")
    # Interrupted after two shards: what is there is no data set yet, and the next command goes on.
    draw, drawn = Plan.draw_shard, []

    def stop_after_two(self, *given):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(1)
        return draw(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "draw_shard", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            build(settings, out, processes=1)
    assert len(files_in(out / "data")) == 2
    for read in (lambda: read_build("memory://sets/one"), lambda: load_tables("memory://sets/one", streaming=True)):
        with pytest.raises(BadInputError, match=r"not finished|no manifest\.json"):
            read()
    with pytest.raises(BadInputError, match="is not finished"):
        load_tables("memory://sets/one", streaming=True)
    build(settings, out, processes=1)
    assert stored(memory, "/sets/one") == contents(tmp_path / "local")
    # Parts, in a store as in a folder.
    for number in (2, 1):
        assert build(settings, place("memory://sets/two"), processes=1, part=f"{number}/2") == {}
    build(settings, place("memory://sets/two"), processes=1, finish=True)
    assert stored(memory, "/sets/two") == contents(tmp_path / "local")
    # A shard that was damaged is noticed by its size, and drawn again.
    shard = next(name for name in memory.find("/sets/two/data"))
    memory.pipe_file(shard, b"")
    build(settings, place("memory://sets/two"), processes=1)
    assert stored(memory, "/sets/two") == contents(tmp_path / "local")
    assert read_build("memory://sets/two", verify=True).rows == 18
    audited = audit("memory://sets/two")
    assert audited.facts["rows"] == audit(str(tmp_path / "local")).facts["rows"]
    rows = load_tables("memory://sets/two", streaming=True)
    assert sum(len(list(split.select_columns(["id"]))) for split in rows.values()) == 18


def test_other_settings_are_refused_in_a_store_and_fresh_replaces(memory, recipe_file, capsys):
    flags = (recipe_file, "--size", 64, "--out", "memory://sets/three")
    assert run(*flags) == 0
    assert run(*flags, "--seed", 1) == 2
    error = one_line(capsys)
    assert "memory://sets/three holds a build with other settings: " in error
    assert "seed was 0 and is 1" in error
    assert run(*flags, "--seed", 1, "--fresh") == 0
    assert json.loads(memory.cat_file("/sets/three/manifest.json"))["seeds"] == {"build": 1}
    assert run(*flags, "--seed", 1, "--only", "no-such-row") == 2


def one_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("nosuch://bucket/set", "nosuch://bucket/set is no folder, nor a URL of a known file system"),
        ("s3://", "s3:// names no bucket or folder"),
        ("ftp://me:secret@127.0.0.1:1/set", "ftp://...127.0.0.1:1/set"),
        ("http://127.0.0.1:1/set?sig=abc", "cannot be used"),
    ],
)
def test_a_place_that_is_none_is_one_line_without_secrets(out, message, recipe_file, capsys):
    assert run(recipe_file, "--out", out, "--size", 64) == 2
    error = one_line(capsys)
    assert message in error
    assert "secret" not in error
    assert "sig=abc" not in error


def test_tables_and_sets_are_read_from_a_store_and_imported_into_one(memory, recipe_file, tmp_path, capsys):
    memory.pipe_file("/tables/recipes.csv", Path(recipe_file).read_bytes())
    there = Plan(BuildSettings("memory://tables/recipes.csv", generation=GenerationSettings(size=64)))
    here = Plan(BuildSettings(recipe_file, generation=GenerationSettings(size=64)))
    assert there.fingerprint == here.fingerprint
    with pytest.raises(BadInputError, match=r"memory://tables/none\.csv cannot be used: there is no such bucket"):
        Plan(BuildSettings("memory://tables/none.csv"))
    source = write_flickr(tmp_path / "flickr")
    memory.put(str(source), "/flickr", recursive=True)
    import_table("flickr8k", str(source), tmp_path / "out")
    import_table("flickr8k", "memory://flickr", "memory://sets/imported")
    assert stored(memory, "/sets/imported").keys() == contents(tmp_path / "out").keys()
    rows = {split: len(list(part)) for split, part in load_tables("memory://sets/imported", streaming=True).items()}
    assert rows == {split: len(part) for split, part in load_tables(str(tmp_path / "out")).items()}
    with pytest.raises(BadInputError, match="exists; give --out a folder that does not"):
        import_table("flickr8k", "memory://flickr", "memory://sets/imported")


def write_flickr(folder: Path) -> Path:
    """Two pictures with captions, in the layout of Flickr8k."""
    (folder / "Images").mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(2):
        Image.new("RGB", (32, 32), (40 * number, 90, 10)).save(folder / "Images" / f"{number}.jpg")
        lines.append(f"{number}.jpg,A plate number {number} .")
    (folder / "captions.txt").write_text("\n".join(lines))
    return folder


def test_a_set_is_built_in_a_repository_of_the_hub(connected_hub, recipe_file, tmp_path):
    from huggingface_hub import HfApi, HfFileSystem

    HfFileSystem.clear_instance_cache()
    settings = BuildSettings(recipe_file, generation=GenerationSettings(size=64))
    build(settings, tmp_path / "local", processes=1)
    HfApi().create_repo("org/built", repo_type="dataset")
    out = place("hf://datasets/org/built")
    for number in (1, 2):
        assert build(settings, out, processes=1, part=f"{number}/2") == {}
    build(settings, out, processes=1, finish=True)
    found = {name: HfFileSystem().cat_file(f"datasets/org/built/{name}") for name in contents(tmp_path / "local")}
    assert found == contents(tmp_path / "local")
    assert not files_in(out / ".unfinished")
    HfFileSystem.clear_instance_cache()


def test_secrets_are_taken_out():
    told = "denied for AKIAIOSFODNN7EXAMPLE, hf_abcdefghijk at https://me:pw@host/x?X-Amz-Signature=12 Bearer abc.def"
    assert "pw" not in str(BadInputError("https://me:pw@host/x holds a build with other settings"))
    hidden = without_secrets(told)
    for secret in ("AKIAIOSFODNN7EXAMPLE", "hf_abcdefghijk", "pw", "12", "abc.def"):
        assert secret not in hidden


def test_what_a_store_raises_is_one_line():
    class Broken(Exception):
        pass

    with pytest.raises(BadInputError, match=r"memory://x cannot be used: .*no answer; check the name"):  # noqa: SIM117
        with reachable(place("memory://x")):
            raise Broken("no answer")


def test_files_of_a_store_are_whole_or_absent_and_the_first_of_several_writers_counts(memory):
    path = place("memory://sets/file")

    def break_off(local):
        local.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_whole(path, break_off)
    assert files_in(path.parent) == {}
    store_whole(path, lambda local: local.write_bytes(b"whole"))
    with opened(path) as stream:
        assert stream.read() == b"whole"
    with on_disk(path) as local:
        assert local.read_bytes() == b"whole"
    assert not store_new(path, b"second")
    assert store_new(place("memory://sets/other"), b"first")
    check_writable(path.parent)
    assert files_in(path.parent) == {"file": 5, "other": 5}


def test_local_paths_and_file_urls_are_folders_of_this_machine(tmp_path):
    assert place(f"file://{tmp_path}") == place(str(tmp_path)) == place(tmp_path) == tmp_path
    assert not is_url(tmp_path)
    assert not is_url("C:folder")
    assert is_url("gs://bucket/x")
