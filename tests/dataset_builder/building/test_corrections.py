"""Corrections by people: what a person fills into a review is followed, or refused by name, by the next build."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builder import cli
from dataset_builder.building.build import build
from dataset_builder.building.corrections import by_person, corrections_in_words, read_corrections
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.rule import Labeller
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing.publish import publish
from dataset_builder.publishing.review import TABLE, cells_of, review

PLATING = GenerationSettings(size=64, batch_size=4)
LABEL, TITLE, OUT, LOOKED_AT = (
    "peach-cake-00-00",
    "anchovy-toast-00-00",
    "endive-with-rocket-00-00",
    "beef-with-soy-sauce-00-00",
)


def settings_of(recipes, *corrections, **content) -> BuildSettings:
    return BuildSettings(recipes, generation=PLATING, corrections=tuple(map(str, corrections)), **content)


def table_of(folder) -> dict:
    with (folder / TABLE).open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(folder) -> dict:
    tables = {split: pq.read_table(paths[0]).to_pylist() for split, paths in read_build(folder).shards.items()}
    return {row["id"]: {**row, "split": split} for split, rows in tables.items() for row in rows}


@pytest.fixture(scope="module")
def recipe_file(recipe_file, tmp_path_factory):
    """The recipes of plain taste, and one that is worth a look."""
    path = tmp_path_factory.mktemp("doubtful") / "recipes.csv"
    doubtful = "Sour lentils,\"['lentil', 'carrot', 'broth', 'red wine vinegar', 'tomato paste', 'garlic']\",Serve.\n"
    path.write_text(Path(recipe_file).read_text() + doubtful)
    return str(path)


@pytest.fixture(scope="module")
def first(recipe_file, tmp_path_factory):
    """A build and the table of all its rows, as a review of doubtful ones would show them."""
    folder = tmp_path_factory.mktemp("first")
    build(settings_of(recipe_file), folder / "v1", 1)
    plan = Plan(settings_of(recipe_file))
    rows = rows_of(folder / "v1")
    named = ({**row, "flavour": FLAVOURS[row["flavour"]]} for row in rows.values())
    empty = {"new_flavour": "", "new_title": "", "exclude": "", "note": ""}
    cells = {row["id"]: {**cells_of(row, row["split"]), **empty} for row in named}
    return folder, plan, rows, cells


@pytest.fixture(scope="module")
def second(first, recipe_file):
    """The next build, by corrections of four rows: a label, a title, an exclusion and a note alone."""
    folder, _, _, cells = first
    said = {
        LABEL: {"new_flavour": "Sour", "note": "=the peaches are | sour"},
        TITLE: {"new_title": "'=Sum of anchovies"},
        OUT: {"exclude": "yes"},
        LOOKED_AT: {"note": "right"},
    }
    corrections = write(folder / "corrections.csv", [{**cells[one], **said.get(one, {})} for one in cells])
    manifest = build(settings_of(recipe_file, corrections), folder / "v2", 1)
    return corrections, manifest, rows_of(folder / "v2")


def test_labels_titles_exclusions_and_notes_are_followed(first, second):
    _, _, before, _ = first
    _, manifest, after = second
    assert set(before) - set(after) == {OUT}
    corrected = after[LABEL]
    assert (FLAVOURS[corrected["flavour"]], corrected["label_source"]) == ("sour", "human")
    assert FLAVOURS.index("sour") in corrected["flavours"]
    assert max(corrected["taste"]) == corrected["taste"][FLAVOURS.index("sour")], "label and soft label agree"
    assert sum(corrected["taste"]) == pytest.approx(1)
    assert after[TITLE]["title"] == "=Sum of anchovies", "the apostrophe of the spreadsheet is no part of it"
    others = set(after) - {LABEL, TITLE}
    assert all(after[one] == before[one] for one in others), "no other row changes, nor the split that it is in"
    assert all(after[one]["split"] == before[one]["split"] for one in after)
    facts = manifest["corrections"]
    assert {name: facts[name] for name in ("labels", "titles", "excluded", "notes")} == {
        "labels": 1, "titles": 1, "excluded": 1, "notes": 2,
    }  # fmt: skip
    assert list(corrections_in_words(facts)) == [
        f"{TITLE}: title Anchovy toast -> =Sum of anchovies",
        f"{LOOKED_AT}: looked at (right)",
        f"{OUT}: left out",
        f"{LABEL}: flavour sweet -> sour (=the peaches are | sour)",
    ]


def test_the_card_of_the_next_version_counts_and_names_them(first, second, tmp_path, monkeypatch):
    publish(first[0] / "v2", "org/flavour-sd", "1.1.0", "cc0-1.0", tmp_path / "dry")
    card = (tmp_path / "dry" / "README.md").read_text()
    assert 'corrected 1 labels (`label_source` is "human") and 1 titles, left out 1 rows and wrote 2 notes' in card
    assert f"- {LABEL}: flavour sweet -> sour (=the peaches are \\| sour)" in card
    assert "rows that a person excluded: 1" in card
    assert "| human | 1 |" in card
    assert json.loads((tmp_path / "dry" / "manifest.json").read_text())["corrections"]["rows"][OUT] == {
        "excluded": True
    }


def test_a_build_of_other_corrections_is_refused(first, second, recipe_file):
    with pytest.raises(BadInputError, match="the corrections by people changed"):
        build(settings_of(recipe_file), first[0] / "v2", 1)
    assert "corrections_sha256" not in first[1].fingerprint, "builds made before stay what they are"


def test_a_later_review_follows_an_earlier_one(first, second, recipe_file, tmp_path):
    corrections, _, after = second
    row = {**after[LABEL], "flavour": FLAVOURS[after[LABEL]["flavour"]]}
    later = write(tmp_path / "later.csv", [{**cells_of(row, "train"), "new_flavour": "bitter"}])
    plan = Plan(settings_of(recipe_file, corrections, later))
    item = next(one for items in plan.recipes.values() for one in items if one.key == LABEL[:-3])
    assert item.label.flavour == "bitter"
    with pytest.raises(BadInputError, match=f"rows that changed since they were reviewed: {LABEL}"):
        Plan(settings_of(recipe_file, later))


def test_a_correction_of_a_row_that_changed_since_is_refused_by_name(first, second, recipe_file, tmp_path):
    text = Path(recipe_file).read_text()
    changed = tmp_path / "recipes.csv"
    changed.write_text(text.replace("peach", "pear", 1))
    with pytest.raises(BadInputError, match=rf"1 corrections are of rows that changed .*: {LABEL} \(.*row \d+\)"):
        Plan(settings_of(str(changed), second[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "no-such-dish-00-00"}, "rows that this build does not have: no-such-dish-00-00"),
        ({"id": "peach-cake-00-07"}, "rows that this build does not have: peach-cake-00-07"),
        ({"id": ""}, "row 2 has no id"),
        ({"new_flavour": "spicy"}, "new_flavour of peach-cake-00-00 is spicy; allowed are sweet, salty"),
        ({"exclude": "perhaps"}, "exclude of peach-cake-00-00 is perhaps; write yes, or nothing"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(first, recipe_file, tmp_path, change, message):
    row = {**first[3][LABEL], "new_flavour": "sour", **change}
    with pytest.raises(BadInputError, match=message):
        Plan(settings_of(recipe_file, write(tmp_path / "corrections.csv", [row])))


def test_a_table_saved_by_a_spreadsheet_is_read(first, tmp_path):
    row = {**first[3][LABEL], "new_flavour": "sour", "note": "säuerlich"}
    path = tmp_path / "saved.csv"
    with path.open("w", newline="", encoding="utf-16") as file:
        csv.writer(file, delimiter=";").writerows([row, row.values()])
    (found,) = read_corrections([path])
    assert (found.row_id, found.flavour, found.note) == (LABEL, "sour", "säuerlich")


def test_files_that_are_no_corrections_are_refused(recipe_file, tmp_path):
    with pytest.raises(BadInputError, match="no such file; `flavour-sd review DIR` writes one"):
        read_corrections([tmp_path / "absent.csv"])
    with pytest.raises(BadInputError, match="no column id, row; fill in a table that `flavour-sd review` wrote"):
        read_corrections([recipe_file])


def test_everything_left_out_is_refused(first, recipe_file, tmp_path):
    rows = [{**row, "exclude": "x"} for row in first[3].values()]
    with pytest.raises(BadInputError, match="leave out every row"):
        Plan(settings_of(recipe_file, write(tmp_path / "all.csv", rows)))


def test_a_person_who_agrees_changes_the_source_alone():
    label = Labeller().label("Lemon tart", ["lemon", "lemon juice", "sugar"])
    confirmed = by_person(label, str(label.flavour))
    assert confirmed == label._replace(source="human")


def test_the_review_lists_doubtful_rows_with_pictures_and_its_table_is_what_a_build_reads(
    first, second, capsys, tmp_path
):
    folder = first[0]
    with pytest.raises(SystemExit) as ended:
        cli.main(["review", str(folder / "v2")])
    assert ended.value.code == 0
    assert "give the file to `flavour-sd build --corrections`" in capsys.readouterr().out
    table = table_of(folder / "v2" / "review")
    assert table
    for row in table.values():
        assert row["reasons"]
        assert (folder / "v2" / "review" / row["picture"]).is_file()
        assert row["new_flavour"] == row["exclude"] == ""
    assert read_corrections([folder / "v2" / "review" / TABLE]) == [], "nothing is filled in yet"
    assert "label" not in table.get(LABEL, {}).get("reasons", ""), "a person looked at this label already"
    # What a person has filled in is never written over.
    filled = [{**row, "note": "seen"} for row in table.values()]
    write(folder / "v2" / "review" / TABLE, filled)
    with pytest.raises(BadInputError, match="holds corrections; move it, or give another --out"):
        review(folder / "v2")
    assert "1 of" in review(folder / "v2", tmp_path / "few", rows=1)
    assert len(table_of(tmp_path / "few")) == 1
