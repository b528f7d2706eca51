"""A finished build whose files were lost, cut or changed: said, and mended where the build can mend it."""

import json
import shutil
from pathlib import Path

import pytest

from dataset_builder.building.build import build
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing.publish import publish
from tests.dataset_builder.tiny_build import make_rows, write_build

SETTINGS = BuildSettings(number=30, recipes_per_shard=8, generation=GenerationSettings(size=64, batch_size=4))


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "flavour-sd"
    build(SETTINGS, out, processes=1)
    return out


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "flavour-sd")
    return tmp_path / "flavour-sd"


def shard_of(folder: Path) -> Path:
    """A shard of the training rows that is not the first."""
    return sorted((folder / "data").glob("train-*"))[1]


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "verify", "said"),
    [(remove, False, "missing"), (cut, False, "bytes"), (empty, False, "bytes"), (flip, True, "other content")],
)
def test_a_lost_or_damaged_shard_is_said_and_drawn_again_byte_by_byte(whole, copy, capsys, damage, verify, said):
    damage(shard_of(copy))
    build(SETTINGS, copy, processes=1, verify=verify)
    message = capsys.readouterr().err
    assert f"shards are drawn again: {shard_of(whole).name}" in message
    assert said in message
    assert contents(copy) == contents(whole)


def test_a_lost_data_folder_is_drawn_again(whole, copy):
    shutil.rmtree(copy / "data")
    build(SETTINGS, copy, processes=1)
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize("damage", [remove, cut, flip])
def test_a_damaged_build_is_never_published(copy, tmp_path, damage):
    damage(copy / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(BadInputError, match=r"test-00000-of-00001\.parquet is .*--verify"):
        publish(copy, "org/flavour-sd", "1.0.0", "cc-by-4.0", tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_builds_of_earlier_versions_hold_no_hashes_and_their_rows_are_counted(copy, whole):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.pop("hashes")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert read_build(copy, verify=True).rows == manifest["rows"]
    cut(shard_of(copy))
    with pytest.raises(BadInputError, match=r"without its \d rows"):
        read_build(copy)


EDITS = {
    "counts": [5, [], {"train": 5}, {"train": {"sweet": "x"}}],
    "generator": [5, None],
    "shards": [[1], {"x": "y"}],
    "hashes": [[1], {"train-00000-of-00003.parquet": 5}, {"train-00000-of-00003.parquet": {"bytes": []}}],
    "settings": [5, "x"],
    "given_up": [[1], {"a": 1}],
    "rejected": [{"a": "b"}],
    "skipped_recipes": [5, {"a": 1}],
    "rows": ["many", None],
    "seeds": [5],
    "simulator": ["yes"],
    "lexicon_sha256": [5],
    "history": [5, [1]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EDITS.items() for value in values])
def test_a_manifest_that_was_changed_by_hand_is_refused_by_the_name_of_the_entry(copy, name, value):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(BadInputError, match=rf"manifest\.json.*{name}|{name}.*manifest\.json|is of \d+ bytes"):
        read_build(copy)


@pytest.mark.parametrize("verb", ["build", "audit", "publish"])
def test_every_verb_that_reads_a_manifest_refuses_a_wrong_one_in_one_line(copy, tmp_path, capsys, verb):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "given_up": [1]}))
    dry = ["--dry-run", str(tmp_path / "dry")]
    words = {
        "build": ["build", "--number", "30", "--size", "64", "--out", str(copy)],
        "audit": ["audit", str(copy), "--out", str(tmp_path / "audit")],
        "publish": ["publish", str(copy), "--repo", "o/n", "--version", "1.0.0", "--license", "mit", *dry],
    }
    with pytest.raises(SystemExit) as ended:
        main(words[verb])
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "manifest.json: given_up holds [1] (list)" in line


def test_an_audit_that_was_changed_by_hand_is_made_again(tmp_path):
    folder = write_build(tmp_path / "build", make_rows())
    publish(folder, "org/flavour-sd", "1.0.0", "cc-by-4.0", tmp_path / "first")
    right = json.loads((folder / "audit.json").read_text())
    for edit in ({"rule": 5}, {"balance": []}, {"crossing": {"dishes": {"values": 0}}}):
        (folder / "audit.json").write_text(json.dumps({**right, **edit}))
        publish(folder, "org/flavour-sd", "1.0.0", "cc-by-4.0", tmp_path / str(edit)[2:6])
        assert json.loads((folder / "audit.json").read_text()) == right
