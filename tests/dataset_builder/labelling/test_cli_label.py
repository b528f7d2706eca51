import errno
import io
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset

from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.cli import main
from dataset_builder.columns import FLAVOURS
from dataset_builder.engines.local import LocalEngine
from dataset_builder.labelling.report import catalogue_labels, cross_checked_reliability, scores_text
from dataset_builder.labelling.rule import Labeller, score_labels
from dataset_builder.labelling.tables import LabelSummary, label_table
from dataset_builder.recipes.recipes import RawRecipe

TABLE = """Title,Cleaned_Ingredients,Instructions
Honey cake,"['flour', 'sugar', 'honey']",Bake.
Pickled cucumbers,"['cucumber', 'vinegar', 'salt']",
Miso soup,"['dashi', 'miso', 'tofu']",
Sweet knots,"['pretzel', 'salt']",
Plain water,"['water']",
,"['salt']",
Nothing,[],
honey cake,"['flour']",
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_text(TABLE)
    return path


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main(["label", *map(str, arguments)])
    return status.value.code


def test_a_table_becomes_a_parquet_file_with_all_label_columns(table, tmp_path, capsys):
    out = tmp_path / "labels.parquet"
    assert run(table, "--out", out) == 0
    rows = Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows.features["flavour"], ClassLabel)
    assert rows.features["flavour"].names == list(FLAVOURS)
    labels = dict(zip(rows["title"], rows.features["flavour"].int2str(rows["flavour"]), strict=True))
    assert labels == {
        "Honey cake": "sweet",
        "Pickled cucumbers": "sour",
        "Miso soup": "umami",
        "Sweet knots": "salty",
    }
    first = rows[0]
    assert first["dish_id"] == "honey-cake"
    assert first["ingredients"] == ["flour", "sugar", "honey"]
    assert first["instructions"] == "Bake."
    assert first["label_source"] == "agree"
    assert first["label_votes"]["ingredients"]["sweet"] == ["sugar", "honey"]
    assert sum(first["taste"]) == pytest.approx(1, abs=1e-5)
    text = capsys.readouterr().out
    for line in (
        "coverage 80.0%",
        "conflict_ingredients          1",
        "Cohen's kappa",
        "without label                   1   Plain water",
        "row without title               1   row 6",
        "row without ingredients         1   Nothing",
        "row equal title                 1   honey cake",
    ):
        assert line in text


def test_conflicts_can_be_dropped_and_another_lexicon_used(table, tmp_path):
    out = tmp_path / "labels.parquet"
    assert run(table, "--on-conflict", "drop", "--out", out) == 0
    assert "Sweet knots" not in pq.read_table(out)["title"].to_pylist()
    lexicon = tmp_path / "lexicon.csv"
    lexicon.write_text("flavour,source,phrase\nbitter,ingredient,water\nbitter,title,water\n")
    assert run(table, "--lexicon", lexicon, "--min-ingredient-votes", 1, "--match", "substring", "--out", out) == 0
    assert pq.read_table(out)["title"].to_pylist() == ["Plain water"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "none.csv does not exist"),
        (["{table}", "--lexicon", "none.csv"], "lexicon none.csv is not a file"),
        (["{table}", "--columns", "title=Name"], "there is no 'Name' to take as title"),
        (["{table}", "--columns", "Name"], "write each as PART=NAME"),
        (["{table}", "--min-title-votes", "0"], "--min-title-votes is 0; give a whole number"),
        (["{table}", "--processes", "0"], "--processes is 0; give a whole number"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(table, tmp_path, capsys, arguments, message):
    out = tmp_path / "labels.parquet"
    assert run(*[argument.format(table=table) for argument in arguments], "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_lexicon_that_does_not_speak_of_the_catalogue_leaves_soft_labels_uncalibrated_and_says_so(tmp_path, capsys):
    (tmp_path / "rezepte.csv").write_text("title,ingredients\nKuchen,Zucker;Zimt\n")
    (tmp_path / "lexikon.csv").write_text("flavour,source,phrase\nsweet,ingredient,Zucker\nsweet,ingredient,Zimt\n")
    out = tmp_path / "labels.parquet"
    assert run(tmp_path / "rezepte.csv", "--lexicon", tmp_path / "lexikon.csv", "--out", out) == 0
    assert "soft labels are not calibrated" in capsys.readouterr().out
    # A temperature fitted to silent dishes would make the five flavours equal: 2.5 of 6.5 parts are smoothing.
    assert pq.read_table(out)["taste"].to_pylist()[0][0] == pytest.approx(4.5 / 6.5)
    assert run(tmp_path / "rezepte.csv", "--lexicon", tmp_path / "lexikon.csv", "--rule", "votes", "--out", out) == 0
    assert "soft labels are not calibrated" in capsys.readouterr().out
    assert pq.read_table(out)["taste"].to_pylist()[0][0] > 0.9


def test_a_folder_that_cannot_be_written_gives_status_2(table, tmp_path, capsys):
    assert run(table, "--out", tmp_path / "missing" / "labels.parquet") == 2
    assert "missing" in capsys.readouterr().err


def test_a_table_a_folder_or_a_device_is_not_overwritten(table, tmp_path, capsys):
    assert run(table, "--out", table) == 2
    assert "is the recipe table itself" in capsys.readouterr().err
    assert table.read_text() == TABLE
    assert run(table, "--out", tmp_path) == 2
    assert "is no file that could be replaced" in capsys.readouterr().err


def test_what_is_read_is_not_overwritten_and_a_repeat_does_not_read_its_own_output(table, tmp_path, capsys):
    lexicon = tmp_path / "lexicon.csv"
    lexicon.write_text("flavour,source,phrase\nbitter,title,water\n")
    out, plot = tmp_path / "labels.parquet", tmp_path / "plot.png"
    for arguments, message in (
        ((table, "--lexicon", lexicon, "--out", lexicon), "is the lexicon itself"),
        ((table, "--lexicon", lexicon, "--reliability", lexicon, "--out", out), "is the lexicon itself"),
        ((table, "--reliability", plot, "--out", plot), "is the file of the labels itself"),
        ((tmp_path, "--out", out), "lies in the folder that is read; give a place outside it"),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert lexicon.read_text().startswith("flavour,source,phrase")
    assert sorted(tmp_path.iterdir()) == [lexicon, table]


@pytest.mark.parametrize(
    ("name", "message"), [("r.txt", "has the ending of no picture"), ("no/r.png", "no such folder")]
)
def test_a_reliability_file_that_cannot_be_written_is_refused_before_any_work(table, tmp_path, capsys, name, message):
    out = tmp_path / "labels.parquet"
    assert run(table, "--reliability", tmp_path / name, "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_figures_that_are_not_defined_are_called_so(tmp_path, capsys):
    table = tmp_path / "recipes.csv"
    table.write_text('title,ingredients\nPlain,"sugar, honey"\n')
    assert run(table, "--out", tmp_path / "labels.parquet") == 0
    assert "agreement not defined, Cohen's kappa not defined" in capsys.readouterr().out
    none = score_labels([None, None], ["sweet", "sour"])
    assert "coverage 0.0%, accuracy of the labelled not defined, macro-F1 0.000" in scores_text(none)


def test_rows_of_one_given_dish_keep_their_common_id(tmp_path):
    table, out = tmp_path / "recipes.csv", tmp_path / "labels.parquet"
    table.write_text('dish_id,title,ingredients\ncake,Cake,"sugar, honey"\ncake,Honey cake,"sugar, honey"\n')
    assert run(table, "--out", out) == 0
    assert pq.read_table(out)["dish_id"].to_pylist() == ["cake", "cake"]


def test_a_full_disk_gives_status_2_and_leaves_nothing(table, tmp_path, capsys, monkeypatch):
    def fill(self, batch):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", fill)
    assert run(table, "--out", tmp_path / "labels.parquet") == 2
    assert "labels.parquet'; make room there" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [table]


def test_titles_that_a_terminal_cannot_show_are_escaped(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("title,ingredients\n\u5bff\u53f8,rice;water\nJam,sugar;honey\n", encoding="utf-8")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert run(path, "--out", tmp_path / "a.parquet") == 0
    sys.stdout.flush()
    assert rb"\u5bff\u53f8" in shown.getvalue()


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path):
    def broken():
        yield RawRecipe("tea", "Black tea", ["black tea"], "", None)
        raise RuntimeError("the reader broke")

    out = tmp_path / "labels.parquet"
    with pytest.raises(RuntimeError, match="the reader broke"):
        label_table(broken(), Labeller(), out, engine=LocalEngine(1))
    assert list(tmp_path.iterdir()) == []


def test_two_processes_give_the_same_file_as_one(tmp_path):
    recipes = [
        RawRecipe(f"{dish.dish_id}-{copy}", f"{dish.title} {copy}", json.dumps(dish.ingredients), "", None)
        for copy in range(5)
        for dish in catalogue_dishes()[:500]
    ]
    one = label_table(recipes, Labeller(), tmp_path / "one.parquet", engine=LocalEngine(1))
    two = label_table(iter(recipes), Labeller(), tmp_path / "two.parquet", engine=LocalEngine(2))
    assert one == two
    assert pq.read_table(tmp_path / "one.parquet").equals(pq.read_table(tmp_path / "two.parquet"))


def test_kappa_of_a_known_table():
    summary = LabelSummary(recipes=52)
    summary.pairs.update({("sweet", "sweet"): 20, ("sour", "sour"): 15, ("sweet", "sour"): 5, ("sour", "sweet"): 10})
    summary.pairs.update({("sweet", None): 1, (None, None): 1})
    assert summary.both == 50
    assert summary.agreement == pytest.approx(0.7)
    assert summary.kappa == pytest.approx(0.4)


def test_the_catalogue_is_labelled_well_enough(tmp_path, capsys):
    out = tmp_path / "labels.parquet"
    plot = tmp_path / "reliability.png"
    assert run("--out", out, "--reliability", plot) == 0
    assert plot.stat().st_size > 1000
    assert "against the reference flavours of" in capsys.readouterr().out
    labels, reference = catalogue_labels(Labeller())
    scores = score_labels([label.flavour for label in labels], reference)
    assert scores.macro_f1 >= 0.80
    assert scores.coverage >= 0.95
    assert (
        scores.macro_f1
        > score_labels(
            [label.flavour for label in catalogue_labels(Labeller(match="substring"))[0]], reference
        ).macro_f1
    )
    figures = cross_checked_reliability(labels, reference)
    assert figures["calibrated"].error < 0.06
    assert figures["calibrated"].error < figures["as estimated"].error


def test_the_real_recipes_are_labelled(shared_data, tmp_path, capsys):
    out = tmp_path / "labels.parquet"
    assert run(shared_data / "recipes_public_domain" / "recipes.csv", "--out", out) == 0
    assert pq.read_table(out).num_rows > 0.9 * 395
    assert "row without ingredients        14" in capsys.readouterr().out


def test_a_data_set_on_the_hub_is_labelled(local_hub, tmp_path):
    code = """
from datasets import Dataset
rows = {"name": ["Honey cake", "Miso soup", ""], "ingredients": [["sugar", "honey"], ["dashi", "miso"], ["salt"]]}
Dataset.from_dict(rows).push_to_hub("org/recipes")
"""
    local_hub.run_python(code, token="hf_writer")
    out = tmp_path / "labels.parquet"
    done = subprocess.run(
        [sys.executable, "-m", "dataset_builder.cli", "label", "org/recipes", "--out", str(out)],
        env=local_hub.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert pq.read_table(out)["title"].to_pylist() == ["Honey cake", "Miso soup"]
    assert "row without title               1" in done.stdout
