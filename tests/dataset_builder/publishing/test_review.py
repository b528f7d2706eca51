"""What makes a row worth a look."""

import pytest

from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.publishing.review import TABLE, doubts, review
from tests.dataset_builder.tiny_build import encoded, make_row, make_rows, picture, write_build


def taste(**shares):
    return [shares.get(name, 0.0) for name in FLAVOURS]


def votes(**words):
    return {
        method: {name: list(of.get(name, ())) for name in FLAVOURS}
        for method, of in {"ingredients": {}, "title": {}, **words}.items()
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"taste": taste(sour=0.7, sweet=0.3)}, "label sweet 0.30, but the soft label leads with sour 0.70"),
        ({"taste": taste(sweet=0.45, sour=0.4, bitter=0.15)}, "a close call: sweet 0.45, sour 0.40"),
        ({"label_votes": votes(title={"bitter": ["kale"]})}, "the title speaks for bitter (kale)"),
        ({"label_votes": votes(ingredients={"sour": ["lemon", "lime"]})}, "no ingredient speaks for sweet"),
        ({"label_votes": votes(ingredients={"sweet": ["honey"]})}, "one word alone speaks for sweet (honey)"),
        ({"label_source": "conflict_title"}, "title and ingredients disagree, and the title won"),
        ({"generation": {"rejected": ["black (seed 1)"]}}, "1 earlier pictures were rejected (black (seed 1))"),
        ({"generation": {"prompt_read": "soup"}}, "the prompt was longer than the text encoder reads"),
    ],
)
def test_reasons(change, reason):
    sure = {
        "taste": taste(sweet=1.0),
        "label_votes": votes(ingredients={"sweet": ["honey", "sugar"]}),
        "label_source": "agree",
        "generation": {},
    }
    row = {**make_row(0), **sure, "flavour": "sweet"}
    assert list(doubts(row)) == []
    assert reason in [found for _, found in doubts({**row, **change})]


def test_pictures_that_look_alike_or_are_broken_come_first_and_strange_names_stay_in_the_folder(tmp_path):
    rows = make_rows()
    for row in (row for of in rows.values() for row in of):
        row.update(taste=taste(**{FLAVOURS[row["flavour"]]: 1.0}), label_votes=None)
    rows["train"][0].update(image=encoded(picture(99)), id="../../x-00-00", title="=cmd|' /C calc'!A0")
    rows["test"][0].update(image=encoded(picture(99)))
    rows["train"][1]["image"] = {"bytes": b"no picture", "path": None}
    folder = write_build(tmp_path / "build", rows)
    review(folder)
    lines = (folder / "review" / TABLE).read_text().splitlines()
    assert len(lines) == 4
    assert lines[1].split(",")[0] == rows["train"][1]["id"]
    assert "the picture cannot be read" in lines[1]
    assert "looks like that of Dish number" in lines[2]
    assert "which is in test" in lines[2] + lines[3]
    assert "'=cmd" in lines[2] + lines[3], "no cell is a formula"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "pictures" in path.parts]
    assert {path.parent for path in written} == {folder / "review" / "pictures"}


def test_no_rows_wanted(tmp_path):
    with pytest.raises(BadInputError, match="--rows is 0"):
        review(tmp_path, rows=0)
