"""A table in another language than its lexicon is said to be so, and not labelled by chance words."""

import pytest

from dataset_builder.cli import main
from dataset_builder.labelling.languages import Vocabulary
from dataset_builder.labelling.lexicon import Lexicon

FOREIGN = [
    "Mehl; Zucker; Butter; Eier; Äpfel; Zimt",
    "Kartoffeln; Essig; Öl; Zwiebeln; Brühe",
    "arroz; pollo; aceite de oliva; sal",
    "farine; sucre; oeufs; pommes; lait",
    "boter; zout; melk; uien",
    "smör; socker; mjöl; ägg; salt",
    "свёкла; капуста; соль",
    "un; şeker; tuz; yumurta; süt",
]
ENGLISH = [
    "2 cups all-purpose flour; 1 tsp vanilla extract; 3 large eggs",
    "tea; milk",
    "paneer; ghee; garam masala; turmeric",
    "gochujang; rice; kimchi; sesame oil",
    "1 can (14 oz, drained) beans; salt",
]


@pytest.mark.parametrize(("line", "fits"), [(one, False) for one in FOREIGN] + [(one, True) for one in ENGLISH])
def test_a_recipe_is_told_by_the_words_of_its_ingredients(line, fits):
    vocabulary = Vocabulary(Lexicon.load())
    assert vocabulary.fits(*vocabulary.count(line.split(";"))) is fits


def test_foreign_rows_are_not_labelled_but_counted_and_named(tmp_path, capsys):
    table = tmp_path / "a.csv"
    rows = [f'Gericht {number},"{line}"' for number, line in enumerate(FOREIGN)]
    table.write_text("\n".join(["title,ingredients", *rows, 'Honey cake,"honey; sugar"']))
    with pytest.raises(SystemExit) as status:
        main(["label", str(table), "--out", str(tmp_path / "o.parquet")])
    said = capsys.readouterr().out
    assert status.value.code == 0
    assert "the table is not in the language of the lexicon: of the words of its ingredients" in said
    assert f"in another language than the lexicon {len(FOREIGN)}" in " ".join(said.split())
    assert "Gericht 0" in said


def test_a_lexicon_of_another_language_labels_its_own_tables(tmp_path, capsys):
    lexicon, table = tmp_path / "de.csv", tmp_path / "a.csv"
    lexicon.write_text(
        "flavour,source,phrase\nsweet,ingredient,Zucker\nsweet,ingredient,Honig\nsalty,ingredient,砂糖\n"
    )
    table.write_text('title,ingredients\nKuchen,"Mehl; Zucker; Honig"\n')
    with pytest.raises(SystemExit):
        main(["label", str(table), "--lexicon", str(lexicon), "--out", str(tmp_path / "o.parquet")])
    said = capsys.readouterr().out
    assert "1 phrases of the lexicon are in scripts that write no blanks" in said
    assert "coverage 100.0%" in said
