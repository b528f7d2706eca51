from collections import Counter

import pytest

from dataset_builder.catalogue.matching import phrase_key
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.lexicon import SOURCES, Lexicon
from dataset_builder.labelling.rule import Labeller


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "lexicon.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_reads_entries_with_line_weight_and_order(tmp_path):
    path = write(tmp_path, "flavour,source,phrase,weight\nsour,ingredient,lemon juice,2\n\nsweet,title,cake,\n")
    lexicon = Lexicon.load(path)
    assert [tuple(entry) for entry in lexicon.entries] == [
        (2, "sour", "ingredient", "lemon juice", 2),
        (4, "sweet", "title", "cake", 1),
    ]
    assert lexicon.flavours == ("sour", "sweet", "salty", "bitter", "umami")
    assert [entry.phrase for entry in lexicon.of_source("title")] == ["cake"]


def test_the_weight_column_may_be_absent_and_columns_in_any_order(tmp_path):
    lexicon = Lexicon.load(write(tmp_path, "\ufeffphrase,flavour,source\nhoney,sweet,ingredient\n"))
    assert tuple(lexicon.entries[0]) == (2, "sweet", "ingredient", "honey", 1)


def test_blanks_around_a_phrase_belong_to_it_but_not_those_after_every_comma(tmp_path):
    lexicon = Lexicon.load(write(tmp_path, 'flavour,source,phrase\nbitter,ingredient," tea "\nsweet, title, pie\n'))
    assert [entry[1:4] for entry in lexicon.entries] == [("bitter", "ingredient", " tea "), ("sweet", "title", "pie")]
    labels = [
        Labeller(lexicon, match, min_ingredient_votes=1).label("Plate", [line])
        for match in ("substring", "word")
        for line in ("steamed steaks", "black tea bags", "black tea")
    ]
    assert [label.flavour for label in labels] == [None, "bitter", None, None, "bitter", "bitter"]
    assert [labels[place].votes["ingredients"]["bitter"] for place in (1, 4)] == [[" tea "], ["tea"]]


def test_the_digest_follows_what_shapes_labels(tmp_path):
    first = Lexicon.load(write(tmp_path, "flavour,source,phrase\nsweet,title,cake\nsour,title,lime\n")).digest
    same = Lexicon.load(write(tmp_path, "flavour,source,phrase,weight\nsweet,title,cake,1\nsour,title,lime,\n")).digest
    other = Lexicon.load(write(tmp_path, "flavour,source,phrase\nsour,title,lime\nsweet,title,cake\n")).digest
    assert first == same != other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavour,source,phrase\nspicy,title,chilli\n", "line 2: flavour is 'spicy'; allowed are sweet, salty, sour"),
        ("flavour,source,phrase\nsweet,name,cake\n", "line 2: source is 'name'; allowed are ingredient, title"),
        ("flavour,source,phrase\nsweet,title,cake, pie\n", "line 2 has more cells than the header; put a phrase with"),
        ('flavour,source,phrase\nsweet,title,"cake\nsweet,title,pie\n', "is not a CSV file in UTF-8: unexpected end"),
        ("flavour,source,phrase\nsweet,title,cake\nsweet,title,\n", "line 3: the phrase is empty"),
        (
            "flavour,source,phrase,weight\nsweet,title,cake,-1\n",
            "line 2: weight is '-1'; give a whole number from 0 to 1000000",
        ),
        ("taste,word\nsweet,cake\n", "has the columns taste, word; needed are flavour, source, phrase"),
        ("", "has the columns none"),
        ("flavour,source,phrase\n", "has no entry"),
    ],
)
def test_bad_files_are_refused_with_the_place_and_what_is_allowed(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(BadInputError, match=message) as error:
        Lexicon.load(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_wrong_encoding_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="is not a file"):
        Lexicon.load(tmp_path / "none.csv")
    with pytest.raises(BadInputError, match="is not a CSV file in UTF-8"):
        Lexicon.load(write(tmp_path, "flavour,source,phrase\nsweet,title,pâté\n", encoding="latin-1"))


def test_the_default_lexicon_is_sound():
    lexicon = Lexicon.load()
    counts = Counter((entry.flavour, entry.source) for entry in lexicon.entries)
    assert set(counts) == {(flavour, source) for flavour in FLAVOURS for source in SOURCES}
    assert sum(counts.values()) > 800
    keys = Counter((entry.source, phrase_key(entry.phrase)) for entry in lexicon.entries)
    assert [key for key, number in keys.items() if number > 1] == []
    assert lexicon.flavours == ("bitter", "salty", "sour", "umami", "sweet")


def test_words_that_deny_belong_to_the_lexicon(tmp_path):
    path = tmp_path / "lexicon.csv"
    lines = ["flavour,source,phrase", "sweet,ingredient,sukker", "salty,ingredient,salt", "negation,before,foruten"]
    path.write_text("\n".join(lines))
    lexicon = Lexicon.load(path)
    assert [entry.phrase for entry in lexicon.entries] == ["sukker", "salt"]
    assert lexicon.negation.before == {"foruten"}
    label = Labeller(lexicon, min_ingredient_votes=1).label("Kake", ["foruten sukker", "salt"])
    assert label.flavour == "salty"
    path.write_text("\n".join(lines[:3]))
    assert Lexicon.load(path).digest != lexicon.digest
    assert "without" in Lexicon.load(path).negation.before
    path.write_text("\n".join([*lines[:3], "negation,somewhere,foruten"]))
    with pytest.raises(BadInputError, match="line 4: source is 'somewhere'; allowed are before, after, prefix"):
        Lexicon.load(path)


@pytest.mark.parametrize("weight", ["9" * 400, "9" * 5000, "1000001", "1e3", "-1", "x"])
def test_weights_that_no_rule_can_count_are_refused(tmp_path, weight):
    path = tmp_path / "lexicon.csv"
    path.write_text(f"flavour,source,phrase,weight\nsweet,ingredient,honey,{weight}\n")
    with pytest.raises(BadInputError, match=r"line 2: weight is .*; give a whole number from 0 to 1000000"):
        Lexicon.load(path)
