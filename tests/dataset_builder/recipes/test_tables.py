import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import read_recipes
from dataset_builder.recipes.tables import open_table

CSV = 'title,ingredients\nSoup,salt\nCake,"sugar, egg"\n'
CAKES = '{"title": "Cake", "ingredients": ["sugar", "egg"]}\n'
LINES = '{"title": "Soup", "ingredients": ["salt"]}\n'


def titles(source):
    return [dish.title for dish in read_recipes(source).dishes]


def test_a_folder_with_tables_of_several_kinds_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    pq.write_table(pa.table({"title": ["Soup"], "ingredients": ["salt"]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text(LINES)
    with pytest.raises(
        BadInputError, match=r"CSV \(a\.csv\), JSON lines \(c\.jsonl\), Parquet \(b\.parquet\); give one"
    ):
        open_table(tmp_path)


def test_documents_and_hidden_files_beside_the_tables_of_a_folder_are_no_tables(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / ".cache").mkdir()
    pq.write_table(pa.table({"title": ["Soup"], "ingredients": ["salt"]}), tmp_path / "data" / "b.parquet")
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": "1.1"}, indent=2))
    (tmp_path / ".cache" / "a.csv").write_text(CSV)
    assert titles(tmp_path) == ["Soup"]
    (tmp_path / "data" / "b.parquet").rename(tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "lexicon.csv").write_text("flavour,source,phrase\n")  # as a build keeps it
    assert titles(tmp_path) == ["Soup"]
    (tmp_path / "lexicon.csv").unlink()
    (tmp_path / "data" / "train-00000-of-00001.parquet").rename(tmp_path / "b.parquet")
    (tmp_path / "more.json").write_text(LINES)
    with pytest.raises(BadInputError, match=r"JSON lines \(more\.json\), Parquet"):
        open_table(tmp_path)


def test_the_first_object_of_json_lines_need_not_have_all_columns(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "Soup"}\n{"title": "Cake", "ingredients": ["egg"]}\n')
    assert titles(path) == ["Cake"]
    assert open_table(path).columns == ("title", "ingredients")


def test_texts_stored_as_bytes_and_maps_are_read_as_what_they_say(tmp_path):
    path = tmp_path / "a.parquet"
    amounts = pa.array([[("salt", "1 tsp")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"title": pa.array([b"Br\xc3\xbche"]), "ingredients": amounts}), path)
    dish = read_recipes(path).dishes[0]
    assert (dish.title, dish.ingredients) == ("Brühe", ("1 tsp salt",))
    pq.write_table(pa.table({"title": ["Soup"], "ingredients": [[b"salt", b"stock"]]}), path)
    assert read_recipes(path).dishes[0].ingredients == ("salt", "stock")


def test_half_a_character_in_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + '{"title": "Pizza \\ud83c\\udf55", "ingredients": ["salt"]}\n')
    assert titles(path) == ["Soup", "Pizza \U0001f355"]
    path.write_text(LINES + '{"title": "Pizza \\ud83c", "ingredients": ["salt"]}\n')
    with pytest.raises(BadInputError, match=r"a\.jsonl, line 2 holds half of a character"):
        titles(path)


def test_a_damaged_parquet_body_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": [f"Soup {n}" for n in range(9999)], "ingredients": ["salt"] * 9999}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(1000) + content[1004:])
    with pytest.raises(BadInputError, match=r"(?s)a\.parquet is not a whole Parquet file: .*; write or fetch it again"):
        list(open_table(path).rows(["title", "ingredients"]))


CARD = """---
configs:
- config_name: soups
  data_files: soups.jsonl
- config_name: cakes
  data_files: cakes.jsonl
---
"""
UPLOAD = f"""
from huggingface_hub import HfApi
api = HfApi()
for repo, files in {{
    "org/rec": {{"rec.csv": {CSV!r}}},
    "org/two": {{"README.md": {CARD!r}, "soups.jsonl": {LINES!r}, "cakes.jsonl": {CAKES!r}}},
    "org/script": {{"script.py": "import datasets"}},
    "org/broken": {{"broken.jsonl": {LINES!r} * 3 + '{{"title": '}},
}}.items():
    api.create_repo(repo, repo_type="dataset")
    for name, text in files.items():
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo, repo_type="dataset")
"""
READ = """
import json, sys
from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import read_recipes
for source in sys.argv[1:]:
    try:
        print(json.dumps([[dish.title, *dish.ingredients] for dish in read_recipes(source).dishes]))
    except BadInputError as error:
        print(json.dumps(" ".join(str(error).split())))
"""


def test_tables_on_the_hub_are_read_in_any_notation_and_configuration(local_hub):
    local_hub.run_python(UPLOAD, token="hf_writer")
    sources = ["org/rec", "org/two", "org/two:soups", "org/two:cakes", "org/two:pies", "org/script", "org/broken"]
    done = subprocess.run(
        [sys.executable, "-c", READ, *sources], env=local_hub.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(sources, map(json.loads, done.stdout.splitlines()), strict=True))
    both = [["Soup", "salt"], ["Cake", "sugar", "egg"]]
    assert found["org/rec"] == both
    assert [found["org/two:soups"], found["org/two:cakes"]] == [both[:1], both[1:]]
    assert found["org/two"] == ("org/two has the configurations soups, cakes; write org/two:soups for one of them")
    assert found["org/two:pies"].startswith("org/two:pies is neither a file nor a data set that the Hub gives")
    assert "['soups', 'cakes']" in found["org/two:pies"]
    assert found["org/script"].startswith("data set org/script cannot be read: Dataset scripts are no longer supported")
    assert found["org/script"].endswith("; save it as Parquet, CSV or JSON lines and give that")
    assert "org/broken" in found["org/broken"]
