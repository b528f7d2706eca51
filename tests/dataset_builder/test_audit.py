"""The audit finds what makes scores too good: labels that a rule can read, dishes and pictures in two splits."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dataset_builder import audit as audits
from dataset_builder.audit import audit, audit_of_build, plain_title
from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.finished_build import read_build
from dataset_builder.labelling import Labeller
from dataset_builder.near_duplicates import MAX_BITS, Looks, alike_across, looks_of
from dataset_builder.publish import publish
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
    monkeypatch.setattr("dataset_builder.catalogue.reference_flavours", dict)


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
    monkeypatch.setattr("dataset_builder.catalogue.reference_flavours", lambda: reference)
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
    assert "Not audited for want of the columns: id, dish_id, ingredients, flavour, generation, image." in found.lines
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


def test_titles_are_compared_without_case_accents_and_punctuation():
    assert (
        plain_title("Crème brûlée (the classic)!")
        == plain_title("creme  brulee: The Classic")
        == "creme brulee the classic"
    )


def test_the_search_finds_what_comparing_all_pairs_finds():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 40, dtype=np.uint64).tolist()
    for bits in range(10):
        flipped = random.choice(64, size=bits, replace=False)
        hashes.append(hashes[bits] ^ int(sum(1 << int(bit) for bit in flipped)))
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    looks = [Looks(int(bits), grey) for bits in hashes]
    looks[5] = None
    groups = ["train" if n % 3 else "test" for n in range(len(looks))]
    expected = [
        (i, j)
        for i in range(len(looks))
        for j in range(i + 1, len(looks))
        if looks[i] and looks[j] and groups[i] != groups[j] and (hashes[i] ^ hashes[j]).bit_count() <= MAX_BITS
    ]
    assert len(expected) > 2
    assert alike_across(looks, groups) == expected
    assert alike_across([None, None], ["train", "test"]) == []


def test_copies_look_alike_and_other_colours_do_not():
    original = picture(7, size=128, detail=9)
    stream = io.BytesIO()
    original.save(stream, format="JPEG", quality=50)
    copies = [Image.open(stream), original.resize((96, 96)), ImageEnhance.Brightness(original).enhance(1.1)]
    for copy in copies:
        assert alike_across([looks_of(original), looks_of(copy)], ["train", "test"]) == [(0, 1)]
    swapped = Image.fromarray(np.asarray(original)[:, :, ::-1].copy())
    recoloured = Image.merge(
        "RGB", [original.convert("L"), Image.new("L", original.size), Image.new("L", original.size)]
    )
    for other in (swapped, recoloured, picture(8, size=128, detail=9)):
        assert alike_across([looks_of(original), looks_of(other)], ["train", "test"]) == []
