"""The audit finds what makes scores too good: labels that a rule can read, dishes and pictures in two splits."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

from dataset_builder.building.build import build
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import Labeller
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing import audit as audits
from dataset_builder.publishing.audit import audit, audit_of_build
from dataset_builder.publishing.publish import publish
from dataset_builder.recipes.text import plain_title
from tests.dataset_builder.tiny_build import encoded, make_row, make_rows, picture, write_build

FOODS = {
    "sweet": ["honey", "sugar", "banana"],
    "salty": ["anchovy", "salt", "ham"],
    "sour": ["lemon", "vinegar", "lime"],
    "bitter": ["coffee", "cocoa", "endive"],
    "umami": ["soy sauce", "parmesan", "shiitake"],
}


@pytest.fixture
def no_reference(monkeypatch):
    """No dish has a reference flavour, unless a test says so."""
    monkeypatch.setattr("dataset_builder.publishing.audit_reference.reference_flavours", dict)


def labelled_rows():
    """Return rows that are labelled by the rule from their ingredients, with titles that say nothing."""
    rows = make_rows()
    labeller = Labeller()
    for number, row in enumerate(row for split in rows.values() for row in split):
        row["ingredients"] = list(FOODS.values())[number % 5]
        row["title"] = f"Plate of the day {number}"
        flavour = labeller.label(row["title"], row["ingredients"]).flavour
        row["flavour"] = list(FOODS).index(flavour)
    return rows


def test_labels_made_by_the_rule_are_read_off_the_ingredients(tmp_path, no_reference):
    found = audit(str(write_build(tmp_path / "build", labelled_rows())))
    rule = found.facts["rule"]
    assert rule["ingredients"]["test"] == {"coverage": 1.0, "accuracy": 1.0, "macro_f1": 1.0}
    assert rule["title + ingredients"]["all"]["accuracy"] == 1.0
    assert rule["title"]["all"] == {"coverage": 0.0, "accuracy": 0.0, "macro_f1": 0.0}
    assert any("can be read off title + ingredients and off ingredients" in line for line in found.lines)
    assert "| ingredients | test | 100.0 % | 100.0 % | 1.000 |" in found.markdown


def test_a_clean_data_set_is_said_to_be_clean(tmp_path, no_reference):
    found = audit(str(write_build(tmp_path / "build", make_rows())))
    assert found.facts["rows"] == {"train": 10, "validation": 5, "test": 5}
    crossing = found.facts["crossing"]
    assert (crossing["dishes"]["values"], crossing["titles"]["values"], crossing["pictures"]["pairs"]) == (0, 0, 0)
    assert "Looked for in more than one split: no dish, no title, no near-duplicate picture." in found.lines
    assert found.facts["balance"]["train"] == dict.fromkeys(FOODS, 2)
    assert found.facts["reference"] is None
    assert found.facts["absent_columns"] == []


def test_dishes_titles_and_pictures_in_two_splits_are_found(tmp_path, no_reference):
    rows = make_rows()
    rows["test"][0]["dish_id"] = rows["train"][0]["dish_id"]
    rows["test"][1]["title"] = "DÌSH, number-1"
    rows["validation"][0]["image"] = encoded(picture(2), format="JPEG", quality=60)
    rows["validation"][1]["image"] = encoded(picture(3).resize((96, 96)))
    rows["train"].append(make_row(200, image=encoded(picture(200))))
    rows["train"].append(make_row(201, image=encoded(picture(200))))
    found = audit(str(write_build(tmp_path / "build", rows)))
    crossing = found.facts["crossing"]
    assert crossing["dishes"] == {"values": 1, "rows": 2, "examples": ["dish-000 (test, train)"]}
    assert crossing["titles"]["examples"] == ["dish number 1 (test, train)"]
    assert crossing["pictures"] == {
        "pairs": 2,
        "examples": [
            "dish-002-00-00 (train), dish-015-00-00 (validation)",
            "dish-003-00-00 (train), dish-016-00-00 (validation)",
        ],
    }
    said = (
        "In more than one split: 1 dishes, 1 titles, 2 pairs of near-duplicate pictures; scores are too high by them."
    )
    assert said in found.lines
    assert "dish-015-00-00 (validation)" in found.markdown


def test_disagreement_with_the_reference_flavours(tmp_path, monkeypatch):
    reference = {f"dish-{n:03d}": (list(FOODS)[n % 5], (list(FOODS)[n % 5],)) for n in range(8)}
    reference["dish-000"] = ("sour", ("sweet", "sour"))
    reference["dish-001"] = ("umami", ("umami",))
    monkeypatch.setattr("dataset_builder.publishing.audit_reference.reference_flavours", lambda: reference)
    rows = make_rows()
    rows["train"].append(make_row(30, id="dish-003-01-00", dish_id="dish-003", flavour="umami"))
    found = audit(str(write_build(tmp_path / "build", rows)))
    facts = found.facts["reference"]
    assert (facts["rows"], facts["dishes"], facts["accuracy"], facts["label_among_present"]) == (8, 8, 0.75, 0.875)
    assert facts["examples"] == [
        "Dish number 0: labelled sweet, reference sour",
        "Dish number 1: labelled salty, reference umami",
    ]
    assert facts["confusion"][2][0] == 1
    assert any("75.0 % of 8 rows" in line for line in found.lines)
    assert "| sour | 1 | 0 | 2 | 0 | 0 |" in found.markdown


def test_rows_with_rejected_missing_or_broken_pictures(tmp_path, no_reference):
    rows = make_rows()
    rejected = ["black", "near-duplicate of dish-001-00-00", "near-duplicate of dish-002-00-00"]
    rows["train"][0]["generation"]["rejected"] = rejected
    rows["train"][1]["image"] = None
    rows["test"][0]["image"] = {"bytes": b"no picture", "path": None}
    given_up = {"dish-050-00-00": ["flat (seed 1)", "flat (seed 2)"]}
    found = audit(str(write_build(tmp_path / "build", rows, {"given_up": given_up})))
    assert found.facts["pictures"] == {
        "without": 1,
        "unreadable": 1,
        "retried": 1,
        "given_up": 1,
        "reasons": {"near-duplicate": 2, "flat": 2, "black": 1},
        "examples": ["dish-010-00-00", "dish-001-00-00", "dish-050-00-00", "dish-000-00-00"],
    }
    said = "Rows without a picture: 1; unreadable: 1; drawn again after a rejected picture: 1"
    left = "left out because every picture was rejected: 1 (reasons: 2 near-duplicate, 2 flat, 1 black)."
    assert f"{said}; {left}" in found.lines


def test_parts_without_their_columns_are_named(tmp_path, no_reference):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("title,label\nSoup,a\nSoup,b\n")
    found = audit(str(tmp_path / "data"))
    assert found.facts["rule"] == {}
    absent = "id, dish_id, ingredients, flavour, taste, generation, image"
    assert f"Not audited for want of the columns: {absent}." in found.lines
    assert "The rule alone was not scored: labels, titles or ingredients are absent." in found.lines
    assert "not looked for" in found.markdown
    (tmp_path / "data" / "train.csv").write_text("name,label\nSoup,a\n")
    with pytest.raises(BadInputError, match="has none of the columns id, dish_id, title"):
        audit(str(tmp_path / "data"))


def test_the_command_writes_markdown_and_json(tmp_path, no_reference, capsys):
    build = write_build(tmp_path / "build", make_rows())
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(build)])
    assert stopped.value.code == 0
    assert "The labelling rule alone" in capsys.readouterr().out
    assert json.loads((build / "audit.json").read_text())["rows"]["train"] == 10
    assert (build / "AUDIT.md").read_text().startswith(f"# Audit of {build}\n")
    assert audit(str(build)).facts["rows"] == {"train": 10, "validation": 5, "test": 5}, "the reports are no data"
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_audit_of_a_build_is_made_once_for_the_same_rows(tmp_path, no_reference, monkeypatch):
    build = write_build(tmp_path / "build", make_rows())
    first = audit_of_build(read_build(build), "org/flavour-sd")
    with monkeypatch.context() as patch:
        patch.setattr(audits, "audit_rows", None)
        assert audit_of_build(read_build(build), "org/flavour-sd").facts == first.facts
    other = write_build(tmp_path / "other", make_rows(25))
    (other / "audit.json").write_text((build / "audit.json").read_text())
    assert audit_of_build(read_build(other), "org/flavour-sd").facts["rows"] != first.facts["rows"]


def test_a_published_data_set_is_audited_by_its_hub_id(connected_hub, tmp_path):
    publish(write_build(tmp_path / "build", make_rows()), "org/flavour-sd", "1.0.0", "cc-by-4.0")
    command = [str(Path(sys.executable).with_name("flavour-sd")), "audit", "org/flavour-sd"]
    done = subprocess.run(command, cwd=tmp_path, env=connected_hub.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the whole audit is in AUDIT.md" in done.stdout
    assert json.loads((tmp_path / "audit.json").read_text())["rows"] == {"train": 10, "validation": 5, "test": 5}


OWN_LEXICON = "flavour,source,phrase\nbitter,ingredient,honey\nsour,ingredient,salt\nsweet,ingredient,lemon\n"


@pytest.fixture
def own_lexicon_build(tmp_path):
    """A build by the rule of a lexicon that contradicts that of the package."""
    lexicon = tmp_path / "mine.csv"
    lexicon.write_text(OWN_LEXICON)
    with (tmp_path / "recipes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients"])
        for n, word in enumerate(["honey", "salt", "lemon"] * 4):
            writer.writerow([f"Plate {n}", f"['{word}', '{word} and tomato {n}']"])
    out = tmp_path / "build"
    settings = BuildSettings(
        str(tmp_path / "recipes.csv"), lexicon=str(lexicon), generation=GenerationSettings(size=64)
    )
    build(settings, out, processes=1)
    return out


def test_the_rule_is_that_of_the_lexicon_that_gave_the_labels(own_lexicon_build, connected_hub, tmp_path):
    assert (
        Lexicon.load(own_lexicon_build / "lexicon.csv").digest
        == read_build(own_lexicon_build).manifest["lexicon_sha256"]
    )
    found = audit(str(own_lexicon_build))
    assert found.facts["rule"]["ingredients"]["all"]["accuracy"] == 1.0
    assert found.facts["labelling"]["made_the_labels"] is True
    said = [
        "The labelling rule alone, without any learning, is right on the test split in: 0.0 % from title, "
        "100.0 % from title + ingredients, 100.0 % from ingredients.",
        "The labels can be read off title + ingredients and off ingredients: a model that is given it learns the rule.",
    ]
    assert found.lines[:2] == said
    assert found.facts["reference"] is None
    publish(own_lexicon_build, "org/own-words", "1.0.0", "cc-by-4.0")
    card = Path(HfApi().hf_hub_download("org/own-words", "README.md", repo_type="dataset")).read_text()
    assert [line for line in said if line not in card] == []
    assert "the file is `lexicon.csv`" in card
    snapshot_download("org/own-words", repo_type="dataset", local_dir=tmp_path / "down")
    assert audit(str(tmp_path / "down")).lines[:2] == said


def test_without_its_lexicon_the_rule_that_made_the_labels_is_not_pretended(own_lexicon_build, tmp_path):
    (own_lexicon_build / "lexicon.csv").write_text(OWN_LEXICON.replace("honey", "sugar"))
    found = audit(str(own_lexicon_build))
    assert found.facts["labelling"]["made_the_labels"] is False
    assert "is not the rule that made these labels" in found.lines[0]
    assert "is not the rule that made these labels" in found.markdown
    publish(own_lexicon_build, "org/own-words", "1.0.0", "cc-by-4.0", dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry" / "lexicon.csv").exists()
    (own_lexicon_build / "lexicon.csv").write_text("no lexicon")
    assert audit(str(own_lexicon_build)).facts == found.facts


def test_the_settings_of_the_rule_are_those_of_the_build(tmp_path):
    with (tmp_path / "recipes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients"])
        # Neither is found as a whole word.
        writer.writerows((f"Plate {n}", f"['tomato {n}', '{('honeyed', 'saltines')[n % 2]}']") for n in range(12))
    (tmp_path / "mine.csv").write_text("flavour,source,phrase\nsalty,ingredient,salt\nsweet,ingredient,honey\n")
    rule = {"match": "substring", "min_ingredient_votes": 1, "min_title_votes": 2, "on_conflict": "title"}
    recipes, lexicon = str(tmp_path / "recipes.csv"), str(tmp_path / "mine.csv")
    generation = GenerationSettings(size=64)
    build(BuildSettings(recipes, lexicon=lexicon, generation=generation, **rule), tmp_path / "build", processes=1)
    found = audit(str(tmp_path / "build")).facts
    assert found["labelling"]["settings"] == {"rule": "votes", **rule}
    assert found["rule"]["ingredients"]["all"]["accuracy"] == 1.0


def test_the_lexicon_of_the_package_is_not_copied(tmp_path, recipe_file):
    build(BuildSettings(recipe_file, generation=GenerationSettings(size=64)), tmp_path / "build", processes=1)
    assert not (tmp_path / "build" / "lexicon.csv").exists()
    assert audit(str(tmp_path / "build")).facts["labelling"]["made_the_labels"] is True


def test_the_reference_is_for_the_dishes_of_the_catalogue_only(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dataset_builder.publishing.audit_reference.reference_flavours", lambda: {"dish-000": ("sour", ("sour",))}
    )
    for recipes, known in ((None, True), ("recipes.csv", False)):
        folder = write_build(tmp_path / str(known), make_rows(), {"settings": {"recipes": recipes}})
        assert (audit(str(folder)).facts["reference"] is not None) is known
    assert audit(str(write_build(tmp_path / "old", make_rows(), {"settings": None}))).facts["reference"] is None


def test_one_picture_for_many_dishes_is_named(tmp_path, no_reference):
    rows = make_rows(60)
    clean = audit(str(write_build(tmp_path / "clean", rows)))
    assert clean.facts["repeated_pictures"] == {"sets": 0, "rows": 0, "most_dishes": 0, "examples": []}
    assert not any("Inside one split" in line for line in clean.lines)
    for row in rows["train"][:7]:
        row["image"] = encoded(picture(500))
    rows["train"][7]["image"] = encoded(picture(500), format="JPEG", quality=60)
    rows["train"][10]["image"] = rows["train"][11]["image"]
    rows["train"][10]["dish_id"] = rows["train"][11]["dish_id"]  # of one dish: no matter
    folder = write_build(tmp_path / "build", rows)
    found = audit(str(folder))
    names = ", ".join(row["id"] for row in rows["train"][:5])
    expected = {"sets": 1, "rows": 8, "most_dishes": 8, "examples": [f"{names} and 3 more (train)"]}
    assert found.facts["repeated_pictures"] == expected
    said = "Inside one split 8 pictures look like that of another dish (1 sets, the largest of 8 dishes)"
    publish(folder, "org/x", "1.0.0", "mit", dry_run=tmp_path / "dry")
    assert f"- {said}" in (tmp_path / "dry" / "README.md").read_text()
    assert names in found.markdown


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "\xff"])
def test_a_broken_audit_of_a_build_is_made_again(tmp_path, no_reference, content):
    folder = write_build(tmp_path / "build", make_rows())
    first = audit_of_build(read_build(folder), "org/flavour-sd")
    (folder / "audit.json").write_text(content, encoding="latin-1")
    assert audit_of_build(read_build(folder), "org/flavour-sd").facts == first.facts


def test_titles_are_compared_without_case_accents_and_punctuation():
    assert (
        plain_title("Crème brûlée (the classic)!")
        == plain_title("creme  brulee: The Classic")
        == "creme brulee the classic"
    )


def test_rows_on_which_label_soft_label_and_reference_differ_most_come_first(tmp_path, monkeypatch):
    rows = make_rows()
    for row in rows["train"]:
        row["flavour"], row["taste"] = 0, [0.9, 0.1, 0.0, 0.0, 0.0]
    # The soft label contradicts the label of one row, a person's label both labels of another.
    rows["train"][1] |= {"title": "Split plate", "taste": [0.2, 0.5, 0.3, 0.0, 0.0]}
    rows["train"][2] |= {"title": "Judged plate"}
    judged = {rows["train"][2]["dish_id"]: ("umami", ("umami",)), rows["train"][3]["dish_id"]: ("sweet", ("sweet",))}
    monkeypatch.setattr("dataset_builder.publishing.audit_reference.reference_flavours", lambda: judged)
    of_others = {row["title"] for split in ("test", "validation") for row in rows[split]}
    found = audit(str(write_build(tmp_path / "build", rows)))
    apart = [line for line in found.facts["disagreements"]["examples"] if line.split(":")[0] not in of_others]
    assert apart == [
        "Judged plate: label sweet, soft sweet 0.90, reference umami",
        "Split plate: label sweet, soft salty 0.50",
    ]
    assert "Judged plate: label sweet" in found.markdown
    assert found.facts["disagreements"]["with_reference"] == 2


def test_builds_of_before_the_choice_of_rules_are_audited_with_theirs():
    settings = {"match": "word", "min_ingredient_votes": 2, "min_title_votes": 1, "on_conflict": "ingredients"}
    manifest = {"lexicon_sha256": Lexicon.load().digest_of_words, "settings": {"recipes": None, **settings}}
    rule = audits.find_rule(manifest, None)
    assert rule.made_the_labels is True
    assert dict(rule.settings) == {"rule": "votes", **settings}
    assert isinstance(rule.labeller, Labeller)
