"""The audit reads data sets that no build of ours wrote, and says in one line what it cannot read."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.publishing.audit import audit
from tests.dataset_builder.tiny_build import encoded, make_rows, picture, write_build


def foreign(tmp_path, rows, name="data"):
    """Write a table of somebody else's, with a train and a test split."""
    folder = tmp_path / name
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows[split]), folder / f"{split}.parquet")
    return folder


def test_titles_of_other_scripts_and_absent_titles_are_not_equal(tmp_path):
    rows = {
        "train": [{"title": one, "flavour": "sweet"} for one in ("борщ", "Café", "दाल", None, "🍕", "दिल")],
        "test": [{"title": one, "flavour": "sour"} for one in ("суп", "味噌汁", "दूल", None, "🍔", "")],
    }
    folder = foreign(tmp_path, rows)
    assert audit(str(folder)).facts["crossing"]["titles"] == {"values": 0, "rows": 0, "examples": []}
    rows["test"] += [{"title": "CAFE!", "flavour": "sour"}, {"title": "«Борщ»", "flavour": "sour"}]
    again = audit(str(foreign(tmp_path, rows, "again"))).facts["crossing"]["titles"]
    assert again["examples"] == ["борщ (test, train)", "cafe (test, train)"]


@pytest.mark.parametrize(
    "ingredients",
    [
        "['honey', 'sugar']",
        '["honey", "sugar"]',
        "honey\nsugar",
        "honey; sugar",
        ["honey", None, "sugar"],
        [{"text": "honey"}, {"text": "sugar"}],
    ],
)
def test_ingredients_may_be_written_in_any_way(tmp_path, ingredients):
    row = {"title": "Plate", "ingredients": ingredients, "flavour": "sweet"}
    found = audit(str(foreign(tmp_path, {"train": [row], "test": [row]})))
    assert found.facts["rule"]["ingredients"]["test"]["accuracy"] == 1.0
    assert "may not be the rule that made these labels" in found.markdown


def test_numbers_as_titles_unlabelled_tests_and_columns_of_one_split(tmp_path):
    train = [
        {"title": 7, "ingredients": ["honey", "sugar"], "flavour": "sweet", "dish_id": None, "generation": "by hand"}
    ]
    test = [{"title": 7, "ingredients": None}]
    found = audit(str(foreign(tmp_path, {"train": train, "test": test})))
    assert found.facts["crossing"]["titles"]["examples"] == ["7 (test, train)"]
    assert found.facts["crossing"]["dishes"]["values"] == 0
    assert "is right on all rows in" in found.lines[0]


def test_one_of_several_configurations_is_audited(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"title\nSoup {name}\n" + "Stew\n" * (name == "two"))
    entries = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    assert audit(f"{tmp_path}:two").facts["rows"] == {"train": 2}
    with pytest.raises(BadInputError, match="BuilderConfig 'three' not found"):
        audit(f"{tmp_path}:three")


def test_a_single_file_is_audited(tmp_path, recipe_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["label", recipe_file, "--out", "labels.parquet"], ["audit", "labels.parquet"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert not stopped.value.code
    facts = json.loads((tmp_path / "audit.json").read_text())
    assert facts["rows"] == {"train": 18}
    assert facts["rule"]["title + ingredients"]["all"]["accuracy"] == 1.0


@pytest.mark.parametrize("content", ["[]", '"text"'])
def test_a_manifest_that_is_no_object_is_refused_by_name(tmp_path, content):
    folder = foreign(tmp_path, {"train": [{"title": "Soup"}], "test": [{"title": "Stew"}]})
    (folder / "manifest.json").write_text(content)
    with pytest.raises(BadInputError, match=r"manifest\.json holds no JSON object"):
        audit(str(folder))


def test_a_manifest_of_somebody_else_says_nothing(tmp_path):
    folder = foreign(tmp_path, {"train": [{"title": "Soup"}], "test": [{"title": "Stew"}]})
    (folder / "manifest.json").write_text('{"finished": true, "given_up": 3}')
    assert audit(str(folder)).facts["labelling"]["made_the_labels"] is None


def test_broken_pictures_of_every_kind_are_counted_and_named(tmp_path, monkeypatch):
    good = encoded(picture(1))["bytes"]
    broken = [
        good[:40] + bytes(20) + good[60:],  # a chunk that is none: SyntaxError
        good[:60],
        encoded(picture(1).resize((1000, 1000)))["bytes"],  # DecompressionBombError
        b"",
        b"II*\0" + bytes(30),
        b"GIF89a",
    ]
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 250_000)
    rows = make_rows()
    for row, content in zip(rows["train"], broken, strict=False):
        row["image"] = {"bytes": content, "path": None}
    rows["train"][6]["image"] = {"bytes": None, "path": "nowhere.png"}
    found = audit(str(write_build(tmp_path / "build", rows))).facts["pictures"]
    assert (found["unreadable"], found["without"]) == (7, 0)
    assert found["examples"] == [row["id"] for row in rows["train"][:7]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {
                "README.md": "---\nconfigs:\n- config_name: one\n  data_files: a.csv\n"
                "- config_name: two\n  data_files: b.csv\n---\n",
                "a.csv": "title\nSoup\n",
                "b.csv": "title\nSoup\n",
            },
            "has the configurations one, two; write .*:one for one of them",
        ),
        ({"data.py": "import datasets"}, "scripts are no longer supported.*refs/convert/parquet"),
        ({"train.parquet": "no Parquet"}, "cannot be read .*mend or remove"),
        ({"train.csv": "title,ingredients\n"}, "has no rows; build or import it first"),
        ({"notes": "no table"}, "holds no table; give CSV, JSON lines or Parquet, or the folder of a finished build$"),
        ({".unfinished/settings.json": "{}"}, "holds no table; give CSV"),
    ],
)
def test_what_is_no_single_table_is_refused_in_one_line(tmp_path, files, message, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(folder)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1])
    assert "Traceback" not in "".join(said)
