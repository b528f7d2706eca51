import random

import pytest

from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import LABEL_SOURCES, Labeller, score_labels

SMALL = """flavour,source,phrase,weight
sour,ingredient,lemon juice,2
sour,ingredient,vinegar,2
sour,title,pickled,
salty,ingredient,salt,
salty,ingredient,feta,2
salty,title,salted,
sweet,ingredient,sugar,2
sweet,ingredient,honey,2
sweet,title,cake,
sweet,title,sweet,
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.csv"
    path.write_text(SMALL)
    return Lexicon.load(path)


@pytest.mark.parametrize(
    ("title", "ingredients", "flavour", "source"),
    [
        ("Honey cake", ["sugar", "flour"], "sweet", "agree"),
        ("Plain things", ["sugar"], "sweet", "ingredients_only"),
        ("Cake", ["flour"], "sweet", "title_only"),
        ("Sweet cucumbers", ["vinegar", "cucumber"], "sour", "conflict_ingredients"),
        ("Toast", ["bread", "flour", "water", "yeast", "salt"], None, "none"),
    ],
)
def test_the_two_methods_combine(small, title, ingredients, flavour, source):
    label = Labeller(small).label(title, ingredients)
    assert (label.flavour, label.source) == (flavour, source)
    assert source in LABEL_SOURCES


def test_a_conflict_is_settled_as_asked(small):
    recipe = ("Sweet cucumbers", ["vinegar", "cucumber"])
    by_title = Labeller(small, on_conflict="title").label(*recipe)
    dropped = Labeller(small, on_conflict="drop").label(*recipe)
    assert (by_title.flavour, by_title.source) == ("sweet", "conflict_title")
    assert (dropped.flavour, dropped.source) == (None, "conflict_dropped")
    assert (dropped.by_ingredients, dropped.by_title) == ("sour", "sweet")


def test_all_reasons_are_kept(small):
    label = Labeller(small).label("Salted honey cake", ["Honey", "unsalted butter", "feta", "salt", "honey"])
    assert label.votes == {
        "ingredients": {"sweet": ["honey"], "salty": ["salt", "feta"], "sour": [], "bitter": [], "umami": []},
        "title": {"sweet": ["cake"], "salty": ["salted"], "sour": [], "bitter": [], "umami": []},
    }
    assert label.flavours == ("sweet", "salty")
    assert sum(label.taste) == pytest.approx(1)
    assert label.taste[FLAVOURS.index("salty")] == max(label.taste)
    assert min(label.taste) > 0


def test_denied_words_do_not_vote(small):
    label = Labeller(small).label("Unsalted cake", ["unsalted butter", "sugar-free honey", "no added salt"])
    assert label.votes["ingredients"] == {name: ["honey"] if name == "sweet" else [] for name in FLAVOURS}
    assert label.votes["title"]["salty"] == []


def test_the_first_four_ingredients_count_twice(small):
    assert Labeller(small).label("", ["salt", "bread"]).flavour == "salty"
    label = Labeller(small).label("", ["feta", "bread", "egg", "milk", "sugar", "vinegar"])
    assert label.by_ingredients == "salty"
    assert label.taste[FLAVOURS.index("salty")] == pytest.approx(4.5 / 10.5)


def test_a_phrase_of_weight_0_shields_the_shorter_one_inside(tmp_path):
    path = tmp_path / "shield.csv"
    path.write_text("flavour,source,phrase,weight\nsalty,ingredient,olive,2\nsalty,ingredient,olive oil,0\n")
    labeller = Labeller(Lexicon.load(path))
    assert labeller.label("", ["olive oil"]).flavour is None
    assert labeller.label("", ["olives in olive oil"]).votes["ingredients"]["salty"] == ["olive"]


def test_the_old_rule_took_unsalted_butter_for_salt(small):
    assert Labeller(small, match="substring").label("", ["unsalted butter"]).votes["ingredients"]["salty"] == ["salt"]


@pytest.mark.parametrize("match", ["word", "substring"])
def test_no_phrase_is_found_across_two_ingredients(small, match):
    label = Labeller(small, match).label("", ["lemon", "juice", "hon", "ey"])
    assert label.votes["ingredients"] == {name: [] for name in FLAVOURS}


def test_ties_fall_to_the_flavour_that_the_file_names_first(small):
    assert Labeller(small).label("", ["sugar", "vinegar"]).flavour == "sour"
    assert Labeller(small).label("", ["sugar", "feta"]).flavour == "salty"


def system_0_rule(entries, title, ingredients):
    """The first system's rule, written as plainly as can be."""
    winners = {}
    for source, text, least in (("ingredient", "\n".join(ingredients).lower(), 2), ("title", title.lower(), 1)):
        counts = {}
        for entry in entries:
            if entry.source == source:
                counts[entry.flavour] = counts.get(entry.flavour, 0) + (entry.phrase in text)
        best = max(counts, key=counts.get)  # the first of equals, in the order of the file
        winners[source] = best if counts[best] >= least else None
    return winners["ingredient"] or winners["title"]


def test_substring_matching_equals_the_system_0_rule_on_random_rows():
    lexicon = Lexicon.load()
    labeller = Labeller(
        lexicon, match="substring", min_ingredient_votes=2, min_title_votes=1, on_conflict="ingredients"
    )
    phrases = [entry.phrase for entry in lexicon.entries]
    fillers = ["Unsalted ", "virgin ", "boiled", "2 cups ", "ginger", " steak", "crispy ", "", "", "rice", "flour"]
    generator = random.Random(3)
    seen = set()
    for _ in range(2000):
        lines = [
            generator.choice(fillers) + generator.choice([*fillers, generator.choice(phrases).title()])
            for _ in range(generator.randrange(6))
        ]
        title = generator.choice(["", generator.choice(phrases).upper()]) + generator.choice(fillers)
        expected = system_0_rule(lexicon.entries, title, lines)
        assert labeller.label(title, lines).flavour == expected, (title, lines)
        seen.add(expected)
    assert seen == {None, *FLAVOURS}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_conflict": "vote"}, "on_conflict is 'vote'; allowed are ingredients, title, drop"),
        ({"min_title_votes": 0}, "min_title_votes is 0; both must be 1 or more"),
        ({"match": "regex"}, "match is 'regex'; allowed are word, substring"),
    ],
)
def test_settings_that_are_not_allowed_are_refused(small, settings, message):
    with pytest.raises(ValueError, match=message):
        Labeller(small, **settings)


def test_scores_count_a_missing_label_as_a_miss():
    scores = score_labels(["sweet", "sour", None, "salty"], ["sweet", "sweet", "bitter", "salty"])
    assert scores.coverage == 0.75
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.f1 == {"sweet": pytest.approx(2 / 3), "salty": 1.0, "sour": 0.0, "bitter": 0.0, "umami": 0.0}
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1) / 5)
    assert scores.confusion[FLAVOURS.index("bitter"), -1] == 1
    assert scores.confusion.sum() == scores.rows == 4


def test_scores_need_equally_many_rows():
    with pytest.raises(ValueError, match="1 labels and 2 references"):
        score_labels(["sweet"], ["sweet", "sour"])
