"""Publishing a build: one commit, one tag, nothing by halves, and old versions stay as they were."""

import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, HfApi, snapshot_download

from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.local_hub.store import card_errors
from dataset_builder.publishing.publish import publish
from tests.dataset_builder.tiny_build import make_row, make_rows, write_build

REPO = "org/flavour-sd"
LICENCE = "cc-by-4.0"


@pytest.fixture
def hub(connected_hub):
    return connected_hub


@pytest.fixture
def build(tmp_path):
    return write_build(tmp_path / "build", make_rows())


def tags(hub):
    return {tag.name: tag.target_commit for tag in HfApi().list_repo_refs(REPO, repo_type="dataset").tags}


def card(version):
    return DatasetCard.load(HfApi().hf_hub_download(REPO, "README.md", repo_type="dataset", revision=f"v{version}"))


def changed_rows():
    """Return the rows of a second version: 2 added, 1 removed, 1 relabelled, 1 moved, 1 drawn anew."""
    rows = make_rows()
    rows["train"][0]["flavour"] = 4
    rows["train"][1]["generation"]["seed"] = 99
    rows["test"].append(rows["train"].pop(2))
    rows["train"].pop(3)
    rows["train"] += [make_row(100), make_row(101)]
    return rows


def test_one_commit_one_annotated_tag_and_a_data_set_that_loads(hub, build):
    said = publish(build, REPO, "1.0.0", LICENCE)
    commits = HfApi().list_repo_commits(REPO, repo_type="dataset")
    assert [commit.title for commit in commits] == ["Version 1.0.0", "initial commit"]
    assert tags(hub) == {"v1.0.0": commits[0].commit_id}
    assert commits[0].commit_id in said
    assert hub.store.refs(f"datasets/{REPO}")["tags"]["v1.0.0"]["message"] == "flavour-sd 1.0.0"
    assert card_errors(card("1.0.0").content) == []
    names: dict = {}
    exec(card("1.0.0").text.split("```python\n")[1].split("```")[0], names)
    assert names["dishes"].num_rows == {"train": 10, "validation": 5, "test": 5}
    assert next(iter(names["stream"]))["title"] == names["dishes"]["train"][0]["title"]
    assert names["titles"].column_names == ["title", "flavour"]
    files = hub.store.commit(f"datasets/{REPO}", "v1.0.0")[1]["files"]
    manifest = json.loads(hub.store.object_path(files["manifest.json"].sha256).read_text())
    stated = {"version": "1.0.0", "license": LICENCE, "seeds": {"build": 0}, "lexicon_sha256": Lexicon.load().digest}
    assert stated.items() <= manifest.items()
    assert manifest["counts"]["train"] == {"sweet": 2, "salty": 2, "sour": 2, "bitter": 2, "umami": 2}


def test_old_rows_stay_after_a_second_version_and_the_card_states_the_changes(hub, build, tmp_path):
    publish(build, REPO, "1.0.0", LICENCE)
    publish(write_build(tmp_path / "second", changed_rows()), REPO, "1.1.0", LICENCE)
    text = card("1.1.0").text
    assert "| 1.0.0 | 20 | first version |" in text
    assert "| 1.1.0 | 21 | 1.0.0 | 2 | 1 | 1 | 1 | 1 | 0 |" in text
    assert "relabelled: `dish-000-00-00` from sweet to umami" in text
    assert "moved: `dish-002-00-00` from train to test" in text
    assert "added: `dish-100-00-00`, `dish-101-00-00`" in text
    assert "first version" in card("1.0.0").text
    assert "1.1.0" not in card("1.0.0").text
    publish(build, REPO, "1.2.0", LICENCE)
    assert "| 1.2.0 | 20 | 1.1.0 | 1 | 2 | 1 | 1 | 1 | 0 |" in card("1.2.0").text
    assert "| 1.1.0 | 21 |" in card("1.2.0").text
    out = hub.run_python(
        """
from datasets import load_dataset
old, new = (load_dataset("org/flavour-sd", revision=f"v{version}") for version in ("1.0.0", "1.1.0"))
print({split: len(rows) for split, rows in old.items()}, {split: len(rows) for split, rows in new.items()})
print(old["train"].features["flavour"].int2str(old["train"][0]["flavour"]), old["train"][0]["image"].size)
print(new["train"].features["flavour"].int2str(new["train"][0]["flavour"]))
stream = load_dataset("org/flavour-sd", revision="v1.0.0", split="test", streaming=True)
print(next(iter(stream))["title"], sorted(next(iter(stream.select_columns(["title", "flavour"])))))
narrow = load_dataset("org/flavour-sd", revision="v1.0.0", split="test", streaming=True, columns=["id"])
print([row for row in narrow][0])
"""
    )
    assert out.splitlines() == [
        "{'train': 10, 'validation': 5, 'test': 5} {'train': 10, 'validation': 5, 'test': 6}",
        "sweet (48, 48)",
        "umami",
        "Dish number 10 ['flavour', 'title']",
        "{'id': 'dish-010-00-00'}",
    ]


def test_the_dry_run_is_what_is_published(hub, build, tmp_path):
    said = publish(build, REPO, "1.0.0", LICENCE, dry_run=tmp_path / "dry")
    assert "nothing was published" in said
    assert not HfApi().repo_exists(REPO, repo_type="dataset")
    publish(build, REPO, "1.0.0", LICENCE)
    snapshot_download(REPO, repo_type="dataset", revision="v1.0.0", local_dir=tmp_path / "down")
    for path in (tmp_path / "dry").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "down" / path.relative_to(tmp_path / "dry")).read_bytes()
    names = sorted(path.name for path in (tmp_path / "dry").iterdir())
    assert names == ["AUDIT.md", "README.md", "data", "manifest.json"]
    with pytest.raises(BadInputError, match="exists; give --dry-run a folder that does not"):
        publish(build, REPO, "1.1.0", LICENCE, dry_run=tmp_path / "dry")


def test_a_dry_run_needs_no_hub(build, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "the Hub cannot be reached" in publish(build, REPO, "1.0.0", LICENCE, dry_run=tmp_path / "dry")
    with pytest.raises(BadInputError, match=r"was not published .*offline"):
        publish(build, REPO, "1.0.0", LICENCE)


@pytest.mark.parametrize(
    ("kind", "how", "times"),
    [
        ("upload", "error", 99),
        ("upload", "drop", 99),
        ("batch", "refuse", 99),
        ("create", "drop", 99),
        ("commit", "error", 1),
        ("commit", "drop", 1),
        ("commit", "lose", 1),
        ("commit", "refuse", 1),
        ("tag", "error", 1),
        ("tag", "drop", 1),
        ("tag", "refuse", 1),
    ],
)
def test_a_failed_upload_leaves_no_tag_and_can_be_repeated(hub, build, capfd, kind, how, times):
    hub.inject(kind, how, times=times)
    with pytest.raises(
        BadInputError, match=r"1\.0\.0 was not published .*carries no tag, repeat the command"
    ) as caught:
        publish(build, REPO, "1.0.0", LICENCE)
    assert "hf_" not in str(caught.value) + "".join(capfd.readouterr())
    if HfApi().repo_exists(REPO, repo_type="dataset"):
        assert tags(hub) == {}
    hub.mend()
    publish(build, REPO, "1.0.0", LICENCE)
    commits = HfApi().list_repo_commits(REPO, repo_type="dataset")
    assert [commit.title for commit in commits] == ["Version 1.0.0", "initial commit"]
    assert tags(hub) == {"v1.0.0": commits[0].commit_id}


def test_a_passing_error_while_storing_files_is_overcome(hub, build):
    hub.inject("upload", "error", times=2)
    publish(build, REPO, "1.0.0", LICENCE)
    assert list(tags(hub)) == ["v1.0.0"]


class PanicException(BaseException):
    """As clients written in Rust raise it; it is no `Exception`."""


def stored_wrongly(cause: Exception) -> RuntimeError:
    """Return the error with which the client reports a file that it could not store."""
    error = RuntimeError("Error while uploading 'data/train.parquet' to the Hub.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("Data processing error: CAS service error : ReqwestMiddleware Error: Request failed"),
            "CAS serv",
        ),
        (stored_wrongly(OSError("Xet storage is not reachable")), "Xet storage is not reachable"),
        (
            PanicException("called `Result::unwrap()` on an `Err` value: hf_secret at https://cas/x?sig=1"),
            "on an `Err`",
        ),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "Expecting value"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8"),
        (KeyError("xetReadToken"), "xetReadToken"),
        (TypeError("argument 'endpoint': 'NoneType' object is not an instance of 'str'"), "argument 'endpoint'"),
    ],
)
def test_whatever_a_client_fails_with_is_one_line_without_a_tag(hub, build, monkeypatch, error, said):
    def fails(*given, **named):
        raise error

    monkeypatch.setattr(HfApi, "create_commit", fails)
    with pytest.raises(
        BadInputError, match=r"1\.0\.0 was not published .*; it carries no tag, repeat the command$"
    ) as caught:
        publish(build, REPO, "1.0.0", LICENCE)
    assert said in str(caught.value)
    assert not any(word in str(caught.value) for word in ("hf_secret", "https://", "the card"))
    assert tags(hub) == {}


def test_ctrl_c_while_storing_is_no_failure_of_the_hub(hub, build, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", stopped)
    with pytest.raises(KeyboardInterrupt):
        publish(build, REPO, "1.0.0", LICENCE)


def test_a_tag_whose_answer_was_lost_is_no_failure(hub, build):
    hub.inject("tag", "lose")
    publish(build, REPO, "1.0.0", LICENCE)
    assert list(tags(hub)) == ["v1.0.0"]


@pytest.mark.parametrize("token", ["hf_wrongsecret", ""])
def test_a_refused_token_is_named_nowhere(hub, build, monkeypatch, capfd, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(build), "--repo", REPO, "--version", "1.0.0", "--license", LICENCE])
    assert stopped.value.code == 2
    said = "".join(capfd.readouterr())
    assert "the server answered 401" in said
    assert "repeat the command with a token that may write there" in said
    assert "hf_" not in said
    assert hub.store.repos("datasets") == []


def test_the_command(hub, build, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(build), "--repo", REPO, "--version", "1.0.0", "--license", LICENCE])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("published org/flavour-sd 1.0.0: v1.0.0 is commit ")
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(build), "--repo", REPO, "--version", "1.0.0", "--license", LICENCE])
    assert stopped.value.code == 2
    assert "has v1.0.0 already and a tag is never moved" in capsys.readouterr().err


def test_versions_go_up(hub, build):
    publish(build, REPO, "1.10.0", LICENCE)
    with pytest.raises(BadInputError, match=r"1\.9\.0 is below 1\.10\.0"):
        publish(build, REPO, "1.9.0", LICENCE)


def put(**files):
    """Write files into the repository, as somebody else does; `__` stands for the slash."""
    HfApi().create_repo(REPO, repo_type="dataset", exist_ok=True)
    for name, content in files.items():
        path = name.replace("__", "/").replace("_", ".")
        HfApi().upload_file(path_or_fileobj=content.encode(), path_in_repo=path, repo_id=REPO, repo_type="dataset")


def published_files(version=None):
    return {one.rfilename for one in HfApi().dataset_info(REPO, revision=version).siblings}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"data_csv": "a,b\n1,2\n", "README_md": "# By hand\n\nMy words."}, r"README\.md, data\.csv"),
        ({"README_md": "---\nlicense: mit\n---\nMy words."}, r"README\.md"),
        ({"manifest_json": "[]"}, r"manifest\.json"),
        ({"manifest_json": "{"}, r"manifest\.json"),
        ({"manifest_json": '{"name": "a web app"}'}, r"manifest\.json"),
    ],
)
def test_a_repository_of_another_use_is_left_alone(hub, build, tmp_path, files, named):
    put(**files)
    before = HfApi().dataset_info(REPO).sha
    for dry_run in (None, tmp_path / "dry"):
        with pytest.raises(BadInputError, match=f"holds {named}, which no release .* give a --repo that is new"):
            publish(build, REPO, "1.0.0", LICENCE, dry_run)
    assert HfApi().dataset_info(REPO).sha == before
    assert tags(hub) == {}


@pytest.mark.parametrize(
    "text", ["", "---\nlicense: mit\n---\n", "# Dataset Card for flavour-sd\n\n[More Information needed](x)"]
)
def test_the_card_that_the_hub_writes_into_a_new_repository_is_replaced(hub, build, text):
    put(README_md=text)
    publish(build, REPO, "1.0.0", LICENCE)
    assert "# flavour-sd" in card("1.0.0").text


def test_only_files_of_the_version_before_are_deleted(hub, build, tmp_path):
    rows = make_rows()
    publish(build, REPO, "1.0.0", LICENCE)
    put(notes_txt="mine", eval__results_yaml="mine")
    second = write_build(tmp_path / "second", rows)
    for index in (0, 1):  # the split has two shards now
        (second / "data" / f"test-{index:05d}-of-00002.parquet").write_bytes(
            (write_build(tmp_path / str(index), {**rows, "test": rows["test"][index::2]}) / "data")
            .joinpath("test-00000-of-00001.parquet")
            .read_bytes()
        )
    (second / "data" / "test-00000-of-00001.parquet").unlink()
    publish(second, REPO, "1.1.0", LICENCE)
    files = published_files("v1.1.0")
    assert {"notes.txt", "eval/results.yaml", "data/test-00001-of-00002.parquet"} < files
    assert "data/test-00000-of-00001.parquet" not in files
    assert "data/test-00000-of-00001.parquet" in published_files("v1.0.0")
    put(data__test_csv="id\n1\n")
    with pytest.raises(BadInputError, match=r"holds data/test\.csv, which no release wrote .* move them out of data/"):
        publish(build, REPO, "1.2.0", LICENCE)
    assert list(tags(hub)) == ["v1.0.0", "v1.1.0"]


def test_a_published_version_without_its_columns_is_one_line(hub, build):
    publish(build, REPO, "1.0.0", LICENCE)
    table = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"], "flavour": [1]}), table)
    api, shard = HfApi(), "data/train-00000-of-00001.parquet"
    contents = {table.getvalue(): "lacks the columns generation, ingredients", b"x": "cannot be read: Parquet magic"}
    for content, message in contents.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=shard, repo_id=REPO, repo_type="dataset")
        api.delete_tag(REPO, tag="v1.0.0", repo_type="dataset")
        api.create_tag(REPO, tag="v1.0.0", repo_type="dataset")
        with pytest.raises(BadInputError, match=f"{message}.*publish to another --repo"):
            publish(build, REPO, "1.1.0", LICENCE)


@pytest.mark.parametrize("version", ["v1.0.0", "1.0", "1.0.0-rc1", "01.0.0", "1.0.0 ", ""])
def test_bad_versions_are_refused(build, version):
    with pytest.raises(BadInputError, match=r"is not three numbers such as 1\.0\.0"):
        publish(build, REPO, version, LICENCE)


@pytest.mark.parametrize(
    ("repo", "licence", "message"),
    [
        ("flavour-sd", LICENCE, "names no namespace"),
        ("org/a/b", LICENCE, "is no repository name"),
        (REPO, "Apache 2", "is no licence identifier"),
    ],
)
def test_bad_names_are_refused(build, repo, licence, message):
    with pytest.raises(BadInputError, match=message):
        publish(build, repo, "1.0.0", licence)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"finished": False}, "is not finished; repeat the `flavour-sd build` command"),
        ({"finished": None}, "is not finished"),
        ({"lexicon_sha256": None}, r"does not state lexicon_sha256 \(hash of the lexicon"),
        ({"counts": {"train": {"sweet": 1}}}, "they are not of one build"),
    ],
)
def test_unfinished_builds_are_refused(tmp_path, manifest, message):
    build = write_build(tmp_path / "build", make_rows(), manifest)
    with pytest.raises(BadInputError, match=message):
        publish(build, REPO, "1.0.0", LICENCE)


def test_broken_folders_are_refused(build, tmp_path):
    with pytest.raises(BadInputError, match=r"has no manifest\.json"):
        publish(tmp_path / "none", REPO, "1.0.0", LICENCE)
    shard = build / "data" / "test-00000-of-00001.parquet"
    shard.rename(build / "data" / "test-00000-of-00002.parquet")
    with pytest.raises(BadInputError, match=r"the shards of test in .* are not complete"):
        publish(build, REPO, "1.0.0", LICENCE)
    (build / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(BadInputError, match=r"lacks the shards of test, which manifest\.json counts"):
        publish(build, REPO, "1.0.0", LICENCE)
    shard.write_text("no Parquet")
    with pytest.raises(BadInputError, match="is not Parquet"):
        publish(build, REPO, "1.0.0", LICENCE)
    (build / "manifest.json").write_text("{")
    with pytest.raises(BadInputError, match="is not JSON"):
        publish(build, REPO, "1.0.0", LICENCE)


OWN = "---\npretty_name: Ours\ncitation: us\n---\n# {{ name }} {{ version }}\n\n" + "Words about it. " * 20


def test_a_card_of_ones_own_is_filled_and_keeps_its_metadata(hub, build):
    (build / "README.md").write_text(OWN + "{{ rows }} rows")
    publish(build, REPO, "1.0.0", LICENCE)
    found = card("1.0.0")
    assert found.text.strip().startswith("# flavour-sd 1.0.0")
    assert found.text.strip().endswith("20 rows")
    assert (found.data["citation"], found.data["license"]) == ("us", LICENCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN + "{{ author }}", "cannot be filled .*author"),
        (OWN + "{{ author", "is no template .*unexpected end"),
        (OWN + "[More Information Needed]", r"placeholders left \(\[More Information Needed\]\)"),
        (OWN + "TODO: write this", "placeholders left"),
        (OWN + "<!-- Say what it is. -->", "placeholders left"),
        ("# {{ name }}", "has only"),
        ("---\na: [\n---\n" + OWN, "is not YAML"),
    ],
)
def test_placeholder_cards_are_refused(hub, build, text, message):
    (build / "README.md").write_text(text)
    with pytest.raises(BadInputError, match=message):
        publish(build, REPO, "1.0.0", LICENCE)
    assert hub.store.repos("datasets") == []


@pytest.mark.parametrize(
    ("simulator", "said"), [(True, "The pictures are simulated"), (False, "The pictures are synthetic")]
)
def test_the_card_says_how_the_pictures_were_made(tmp_path, simulator, said):
    build = write_build(tmp_path / "build", make_rows(), {"simulator": simulator})
    publish(build, REPO, "1.0.0", LICENCE, dry_run=tmp_path / "dry")
    text = (tmp_path / "dry" / "README.md").read_text()
    assert said in text
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "How to load it", "Composition", "Columns", "Labels", "Pictures", "Audit", "Intended use", "Limits", "Versions",
        "Licence",
    ]  # fmt: skip
    assert 'revision="v1.0.0"' in text
