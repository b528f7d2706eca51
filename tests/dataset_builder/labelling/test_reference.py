from collections import Counter

import pytest

from dataset_builder.cli import main
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.reference import (
    Reference,
    agreement,
    distance,
    fingerprint,
    judge,
    read_reference,
)
from dataset_builder.labelling.soft_labels import ShareModel
from dataset_builder.labelling.weighing import WeighedLabeller
from dataset_builder.recipes.recipes import RawRecipe


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main(["label", *map(str, arguments)])
    return status.value.code


def test_the_embedded_reference_is_whole_and_its_halves_are_alike():
    references = read_reference()
    assert sum(one.flavour is not None for one in references) >= 300
    assert len({one.fingerprint for one in references}) == len(references)
    assert all(one.title and one.reason and len(one.fingerprint) == 12 for one in references)
    halves = Counter((one.half, one.flavour) for one in references)
    assert {half for half, _ in halves} == {"report", "tuning"}
    assert all(0 <= halves["report", flavour] - halves["tuning", flavour] <= 1 for flavour in (None, *FLAVOURS))


def test_a_recipe_is_found_by_title_and_longest_line_in_any_notation():
    found = fingerprint("Honey cake", ["2 cups sugar", "salt"])
    assert found == fingerprint("HONEY CAKE!", ["salt", "2 cups  Sugar."])
    assert found != fingerprint("Honey cake", ["3 cups sugar", "salt"])
    reference = [Reference("Honey cake", "sweet", found), Reference("Tea", "bitter")]
    rows = [
        ("Honey cake", "salt; 2 cups sugar"),
        ("Honey cake", "salt; 1 cup honey"),
        ("tea", "anything"),
        ("Coffee", "coffee"),
    ]
    recipes = [RawRecipe(str(n), title, ingredients, "", None) for n, (title, ingredients) in enumerate(rows)]
    judged = judge(recipes, reference, WeighedLabeller(), ShareModel())
    assert [(one.title, one.reference.flavour) for one in judged] == [("Honey cake", "sweet"), ("tea", "bitter")]


def test_agreement_counts_a_missing_label_and_leaves_dishes_without_a_flavour_out():
    labels = ["sweet", "sweet", None, "umami", "salty", None] * 20
    truth = ["sweet", "sour", "salty", "umami", None, None] * 20
    found = agreement(labels, truth)
    assert found.scores.rows == 80
    assert found.scores.accuracy == pytest.approx(2 / 3)
    assert found.scores.coverage == 0.75
    assert found.without == (40, 20)
    low, high = found.accuracy
    assert low < 2 / 3 < high
    assert 0.03 < high - low < 0.4
    assert agreement(labels, truth).macro_f1 == found.macro_f1
    perfect = agreement(["sweet", "sour"] * 9, ["sweet", "sour"] * 9)
    assert perfect.accuracy == perfect.macro_f1 == (1.0, 1.0)


def test_the_distance_of_label_soft_label_and_reference():
    soft = (0.6, 0.3, 0.1, 0.0, 0.0)
    assert distance("sweet", soft, "sweet") == distance("sweet", soft, None) == 0
    assert distance("sweet", soft, "salty") == pytest.approx(0.3)
    assert distance("salty", soft, "sour") == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title,taste\nTea,bitter\n", "has no column flavour; needed are title, flavour"),
        (
            "title,flavour\nTea,hot\n",
            "row 2: flavour is 'hot'; allowed are sweet, salty, sour, bitter, umami, or nothing",
        ),
        ("title,flavour\n", "has no row"),
        ('title,flavour\n"Tea,bitter\n', "is not a CSV file in UTF-8"),
    ],
)
def test_a_broken_reference_is_refused(tmp_path, text, message):
    path = tmp_path / "reference.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_reference(path)
    with pytest.raises(BadInputError, match="is not a file"):
        read_reference(tmp_path / "none.csv")


def test_the_command_scores_a_table_against_a_persons_labels(tmp_path, capsys):
    table, reference, out = (tmp_path / name for name in ("recipes.csv", "reference.csv", "labels.parquet"))
    table.write_text(
        "title,ingredients\nHoney Cake,2 cups sugar; flour\nMiso Soup,miso; dashi\nPickles,vinegar; dill\n"
    )
    reference.write_text("title,flavour,reason\nHoney cake,sweet,sugar\nMiso soup,salty,miso paste\n")
    assert run(table, "--reference", reference, "--out", out) == 0
    text = capsys.readouterr().out
    assert "reference labels: 2 of 2 dishes are in the table" in text
    assert "all: 2 dishes, coverage 100.0%, accuracy of the labelled 0.500 [0.000, 1.000]" in text
    assert "catalogue, authors' reference flavours: 1,307 dishes" in text
    assert "differ in 1 rows, most in:\n  Miso Soup: label umami, soft umami" in text
    assert "reference salty (miso paste)" in text
    assert run(table, "--reference", "--out", out) == 2
    assert "none of the 396 dishes of the reference" in capsys.readouterr().err


def test_the_default_rule_holds_on_the_half_that_was_kept_for_the_report(shared_data, tmp_path, capsys):
    assert (
        run(shared_data / "recipes_public_domain" / "recipes.csv", "--reference", "--out", tmp_path / "o.parquet") == 0
    )
    lines = capsys.readouterr().out.splitlines()
    report = next(line for line in lines if line.startswith("report half: "))
    assert float(report.split("labelled ")[1].split()[0]) >= 0.85
    assert float(report.split("macro-F1 ")[1].split()[0]) >= 0.80
    assert float(report.split("coverage ")[1].split("%")[0]) >= 95
