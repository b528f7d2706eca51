import numpy as np
import pytest

from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import LABEL_SOURCES
from dataset_builder.labelling.soft_labels import ShareModel
from dataset_builder.labelling.weighing import WeighedLabeller

SMALL = """flavour,source,phrase,weight
salty,ingredient,salt,2
sour,ingredient,vinegar,5
sour,title,pickled,4
sweet,ingredient,sugar,2
sweet,ingredient,honey,2
sweet,ingredient,syrup,2
bitter,ingredient,cocoa,5
umami,ingredient,beef,3
sweet,title,honey,4
sweet,dish,cake,8
salty,dish,bread,5
umami,dish,stew,5
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.csv"
    path.write_text(SMALL)
    return WeighedLabeller(Lexicon.load(path))


def score(label, flavour):
    return label.taste[FLAVOURS.index(flavour)]


@pytest.fixture(scope="module")
def own():
    return WeighedLabeller()


def test_two_cups_of_sugar_outweigh_a_pinch_of_salt(small):
    sweet = small.label("", ["2 cups sugar", "flour", "butter", "1 pinch salt"])
    salty = small.label("", ["1 pinch sugar", "flour", "butter", "2 tbsp salt"])
    assert (sweet.flavour, salty.flavour) == ("sweet", "salty")


def test_more_of_an_ingredient_is_more_evidence_but_not_in_proportion(small):
    little, much = (small.label("", [f"{grams} g vinegar", "10 g salt"]) for grams in (30, 240))
    assert score(little, "sour") < score(much, "sour")
    # Eight times the amount counts twice.
    evidence = [score(label, "sour") / score(label, "bitter") * 0.5 - 0.5 for label in (little, much)]
    assert evidence[1] == pytest.approx(2 * evidence[0])


def test_without_amounts_the_first_four_ingredients_count_twice(small):
    assert small.label("", ["sugar", "a", "b", "c", "salt"]).flavour == "sweet"
    assert small.label("", ["salt", "a", "b", "c", "sugar"]).flavour == "salty"


def test_the_dish_decides_between_its_ingredients(small):
    lines = ["2 cups sugar", "1 cup cocoa", "2 tbsp vinegar", "1 tsp salt"]
    assert small.label("Cake", lines).flavour == "sweet"
    assert small.label("Bread", ["3 cups flour", "2 tbsp honey", "1 tsp salt"]).flavour == "salty"


def test_the_head_noun_of_a_title_counts_more_than_what_goes_with_it(small):
    assert small.label("Stew with bread", ["water"]).flavour == "umami"
    assert small.label("Bread with stew", ["water"]).flavour == "salty"


def test_alternatives_in_one_line_are_one_ingredient(small):
    one, several = (small.label("", [line, "1 tbsp salt"]) for line in ("2 tbsp honey", "2 tbsp honey, sugar or syrup"))
    assert one.taste == several.taste
    assert several.votes["ingredients"]["sweet"] == ["sugar", "honey", "syrup"]


def test_a_tie_goes_to_the_title_and_label_and_soft_label_name_the_same(tmp_path):
    path = tmp_path / "tie.csv"
    path.write_text(
        "flavour,source,phrase,weight\nsalty,ingredient,salt,2\nsweet,ingredient,sugar,4\n"
        "sour,title,sour,4\nsweet,title,mild,1\nsour,ingredient,lime,1\n"
    )
    labeller = WeighedLabeller(Lexicon.load(path))
    # Sweet has 4 x 2 of the ingredients, sour 6 of the title and 1 x 2 of the ingredients.
    label = labeller.label("Sour plate of rice", ["sugar", "lime"])
    assert (label.flavour, label.source, label.by_ingredients, label.by_title) == ("sour", "tie_title", "sweet", "sour")
    assert np.float32(label.taste).argmax() == FLAVOURS.index("sour")


def test_a_recipe_without_evidence_or_without_a_lead_gets_no_label(small):
    silent = small.label("Plate", ["rice", "water"])
    assert (silent.flavour, silent.source, silent.flavours) == (None, "none", ())
    # A pinch alone says nothing.
    assert small.label("Plate", ["2 cups rice", "1 pinch salt"]).flavour is None
    close = ("", ["30 g sugar", "25 g salt"])
    assert small.label(*close).flavour == "sweet"
    strict = WeighedLabeller(small.lexicon, min_lead=0.2)
    assert (strict.label(*close).flavour, strict.label(*close).source) == (None, "too_close")
    assert strict.label("", ["30 g sugar"]).flavour == "sweet"


def test_a_lead_that_is_no_share_is_refused(small):
    with pytest.raises(ValueError, match="min_lead is 1; give a share from 0 up, below 1"):
        WeighedLabeller(small.lexicon, min_lead=1)


def test_denied_words_are_no_evidence(small):
    label = small.label("", ["200 g unsalted butter", "no sugar"])
    assert label.flavour is None
    assert not any(label.votes["ingredients"].values())


def test_label_and_soft_label_never_contradict_on_the_catalogue(own):
    dishes = catalogue_dishes()
    labels = [own.label(dish.title, dish.ingredients) for dish in dishes]
    assert {label.source for label in labels} <= set(LABEL_SOURCES)
    for model in (ShareModel(), ShareModel(0.3), ShareModel(15.0)):
        # As the table stores them.
        soft = np.asarray(model.scores(labels), np.float32)
        assert [FLAVOURS[place] for place in soft.argmax(axis=1)] == [label.flavour for label in labels]
    assert all(label.flavour in label.flavours for label in labels)
    assert all(sum(label.taste) == pytest.approx(1) for label in labels)


@pytest.mark.parametrize(
    ("title", "lines", "flavour"),
    [
        ("Sugar Cookies", "2 cups sugar; flour; butter; 1 pinch salt", "sweet"),
        ("Pound Cake", "1 lb sugar; 1/4 tsp salt; butter; flour", "sweet"),
        ("Wacky Cake", "3 cups flour; 2 cups sugar; 6 tbsp cocoa; 1 tsp salt; 2 tbsp vinegar", "sweet"),
        ("Grandma's Best", "2 cups sugar; 1 cup cocoa; 1 cup butter; 4 eggs; 1 cup flour; 1 tsp salt", "sweet"),
        ("Chocolate Mousse", "200 g dark chocolate; 4 eggs; 50 g sugar; cream", "sweet"),
        ("Never Fail Pie Crust", "3 cups flour; 1 1/4 cups shortening; 1 tsp salt; 1 egg; 1 tsp vinegar", "salty"),
        ("Hot Crab Dip", "8 oz cream cheese; 1 lb crab meat; 1/2 cup mayonnaise; 1 tbsp lemon juice", "umami"),
        ("Dill Pickles", "4 lb cucumbers; 1 qt vinegar; 1/2 cup salt; dill; garlic", "sour"),
        ("Iced Tea", "4 tea bags; 1 l water", "bitter"),
        ("Pork Chops with Apples", "4 pork chops; 2 apples; 2 tbsp brown sugar; 1 tsp cinnamon", "umami"),
    ],
)
def test_known_faults_of_counting_words_are_gone(own, title, lines, flavour):
    assert own.label(title, lines.split("; ")).flavour == flavour
