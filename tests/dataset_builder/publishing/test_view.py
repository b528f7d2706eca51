"""`flavour-sd view`: one page that needs nothing else, of a build and of an import, safe for strangers' texts."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List, Value

from dataset_builder import cli
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json, write_json
from dataset_builder.publishing.audit import AUDIT_JSON, kept_audit
from dataset_builder.publishing.view import view
from tests.dataset_builder.tiny_build import encoded, make_rows, picture, write_build

HOSTILE = '<script>alert(1)</script> & "soup"'


def run(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["view", *map(str, words)])
    return ended.value.code


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = make_rows()
    rows["train"][0] |= {"title": HOSTILE, "image": encoded(picture(99))}
    rows["test"][0]["image"] = encoded(picture(99))
    rows["train"][1]["generation"] |= {"prompt": HOSTILE, "rejected": ["black (seed 1)"], "attempts": 2}
    rows["train"][2]["image"] = {"bytes": b"no picture", "path": None}
    told = {"given_up": {"dish-999-00-00": ["black (seed 3)"]}, "rejected": {"black": 2}}
    told["skipped_recipes"] = {"without flavour": {"count": 3, "names": ["Water"]}}
    told["corrections"] = {
        "labels": 1, "titles": 0, "excluded": 0, "notes": 1,
        "rows": {"dish-001-00-00": {"flavour": ["sour", "sweet"], "note": HOSTILE}},
    }  # fmt: skip
    folder = write_build(tmp_path_factory.mktemp("view") / "build [v1]", rows, told)
    assert run(folder, "--out", folder / "report.html") == 0
    return (folder / "report.html").read_text()


def test_the_page_needs_no_network_and_is_small(page):
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"(?:src|href)=.(?:https?:)?//|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_every_picture_is_said_in_words(page):
    assert page.count("<img ") == len(
        re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="Picture of [^"]+"', page)
    )
    assert 'aria-label="no picture of Dish number' in page, "a picture that cannot be read is said"


def test_what_it_shows(page):
    for words in (
        "rows of validation",
        "sweet 2",
        "black (seed 3)",
        "recipes, without flavour: 3",
        "the picture looks like that of",
        "1 earlier pictures were rejected",
        "dish-001-00-00: flavour sour -&gt; sweet",
    ):
        assert words in page


def test_a_stranger_s_text_is_text(page):
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3


def test_an_import_of_other_labels(tmp_path):
    features = Features(
        {"id": Value("string"), "image": Image(), "captions": List(Value("string")), "label": Value("string")}
    )
    rows = [
        {"id": f"p{n}", "image": encoded(picture(n)), "captions": [f"Plate {n}."], "label": f"dish {n % 20}"}
        for n in range(40)
    ]
    (tmp_path / "set" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    assert "40 rows on one page" in view(tmp_path / "set", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Plate 3." in page
    assert "dish 1 2 (5 %)" in page
    assert "other labels 16" in page


def test_a_folder_of_neither_is_refused(tmp_path, capsys):
    assert run(tmp_path, "--out", tmp_path / "report.html") == 2
    assert "no build was finished there" in capsys.readouterr().err
    with pytest.raises(BadInputError, match="is a folder; name the file"):
        view(tmp_path, tmp_path)


def test_an_audit_that_was_changed_by_hand_is_not_shown(tmp_path):
    build = write_build(tmp_path / "build", make_rows())
    with pytest.raises(SystemExit):
        cli.main(["audit", str(build), "--out", str(build)])
    facts = read_json(build / AUDIT_JSON, "audit again")
    assert kept_audit(build)
    for name in facts.keys() - {"dataset"}:  # a copy of a build has another place
        for changed in (None, 5, [], {"train": 3}, "\x1b[2J"):
            write_json(build / AUDIT_JSON, {**facts, name: changed})
            assert kept_audit(build) is None or changed == facts[name]
    # One that was never sound has no hash.
    for content in ({"audit_version": 1, "balance": 5}, {**facts, "dataset": 5}):
        write_json(build / AUDIT_JSON, content)
        assert run(build, "--out", tmp_path / "report.html") == 0
