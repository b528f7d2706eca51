import random

import pytest

from dataset_builder.catalogue.matching import Match, PhraseMatcher, phrase_key, word_key
from dataset_builder.catalogue.negation import Negation


def found(phrases, text, match="word"):
    """Return (phrase, matched text, negated) for every match."""
    matcher = PhraseMatcher(phrases, match)
    return [(phrases[m.phrase], text[m.start : m.end], m.negated) for m in matcher.find(text)]


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("berry", "berries"), ("tomato", "tomatoes"), ("leaf", "leaves"), ("loaf", "loaves"), ("anchovy", "anchovies"),
        ("cookie", "cookies"), ("pie", "pies"), ("peach", "peaches"), ("quiche", "quiches"), ("radish", "radishes"),
        ("olive", "olives"), ("clove", "cloves"), ("egg", "eggs"), ("pea", "peas"), ("roe", "roes"),
        ("mango", "mangos"), ("mango", "mangoes"), ("cheese", "cheeses"), ("glass", "glasses"), ("brioche", "brioches"),
        ("chilli", "chillis"),
    ],
)  # fmt: skip
def test_singular_and_plural_meet_in_both_directions(singular, plural):
    assert found([singular], f"two {plural} here") == [(singular, plural, False)]
    assert found([plural], f"one {singular} here") == [(plural, singular, False)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("pea", "pear"), ("salt", "salty"), ("bass", "base"), ("date", "data"), ("rice", "ricer"), ("fig", "figure")],
)
def test_different_words_stay_different(one, other):
    assert word_key(one) != word_key(other)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("salt", "unsalted butter"),
        ("gin", "virgin olive oil"),
        ("gin", "fresh ginger"),
        ("tea", "rump steak"),
        ("crisp", "crispy bacon"),
        ("oil", "boiled egg"),
    ],
)
def test_word_mode_avoids_the_substring_traps_of_the_old_rule(phrase, text):
    assert [match for match in found([phrase], text) if not match[2]] == []
    assert len(found([phrase], text, match="substring")) == 1


def test_accents_case_and_hyphens_do_not_matter():
    assert found(["creme fraiche"], "Crème FRAÎCHE") == [("creme fraiche", "Crème FRAÎCHE", False)]
    assert found(["crème fraîche"], "Cre\u0300me frai\u0302che")[0][1] == "Cre\u0300me frai\u0302che"
    assert found(["sun-dried tomato"], "sun dried tomatoes")[0][1] == "sun dried tomatoes"
    assert found(["goat cheese"], "goat’s cheese")[0][1] == "goat’s cheese"
    assert phrase_key("œufs") == ("oeuf",)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("unsalted butter", "salted"), ("unsalted butter", "salt"), ("unsweetened cocoa", "sweetened"),
        ("sugar-free jelly", "sugar"), ("salt-free", "salt"), ("sugar free", "sugar"), ("no added sugar", "sugar"),
        ("without salt", "salt"), ("without any added salt", "salt"), ("non-salted", "salted"), ("nonsalted", "salted"),
        ("low-sodium", "sodium"), ("low salt", "salt"), ("no salt added", "salt"), ("no-salt-added", "salt"),
        ("free of sugar", "sugar"), ("sugarless gum", "sugar"), ("reduced sodium", "sodium"), ("zero sugar", "sugar"),
    ],
)  # fmt: skip
def test_negation_is_flagged(text, phrase):
    matches = found([phrase], text)
    assert [match[2] for match in matches] == [True]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("free-range eggs", "egg"), ("eggs, free range", "egg"), ("no. 1, salt", "salt"),
        ("1/2 tsp salt (no sugar)", "salt"),
        ("reduced balsamic vinegar", "balsamic vinegar"), ("low-sodium soy sauce", "soy sauce"),
        ("salt free of sugar", "salt"),
        ("union lettuce", "lettuce"), ("no-bake cheesecake", "cheesecake"), ("salted butter", "salted"),
    ],
)  # fmt: skip
def test_what_is_not_negated_is_not_flagged(text, phrase):
    assert [match[2] for match in found([phrase], text)] == [False]


def test_negation_covers_alternatives_and_ends_with_the_clause():
    text = "no sugar or salt, but honey"
    assert [(phrase, negated) for phrase, _, negated in found(["sugar", "salt", "honey"], text)] == [
        ("sugar", True),
        ("salt", True),
        ("honey", False),
    ]


def test_longest_phrase_wins_without_overlaps_from_left_to_right():
    phrases = ["cheese", "goat cheese", "cheese salad", "salad"]
    assert [match[0] for match in found(phrases, "goat cheese salad, cheese salad")] == [
        "goat cheese",
        "salad",
        "cheese salad",
    ]


def test_equal_phrases_are_all_returned():
    assert [match.phrase for match in PhraseMatcher(["salt", "sugar", "Salts"]).find("salt")] == [0, 2]


def test_substring_mode_is_plain_containment():
    phrases = ["salt", "gin", "ginger", "tea", "a", "an", "Salt", "salt", "stea", "", "(x)", "eak g"]
    letters = "saltgine k(x)"
    generator = random.Random(0)
    matcher = PhraseMatcher(phrases, "substring")
    for _ in range(500):
        text = "".join(generator.choice(letters) for _ in range(generator.randrange(30)))
        if generator.random() < 0.5:
            text += generator.choice(phrases) + generator.choice(phrases)
        contained = {index for index, phrase in enumerate(phrases) if phrase and phrase in text.lower()}
        matches = matcher.find(text)
        assert {match.phrase for match in matches} == contained
        for match in matches:
            assert text.lower()[match.start : match.end] == phrases[match.phrase]
            assert match.start == text.lower().find(phrases[match.phrase])
        assert matcher.affirmed(text) == contained


def test_empty_lists_texts_and_phrases():
    for mode in ("word", "substring"):
        assert PhraseMatcher([], mode).find("salt") == []
        assert PhraseMatcher(["salt"], mode).find("") == []
        assert PhraseMatcher(["", "?!"], mode).find("what is this") == []


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="match is 'fuzzy'; allowed are word, substring"):
        PhraseMatcher([], "fuzzy")


def test_match_is_a_tuple_of_offsets_into_the_text_as_given():
    assert PhraseMatcher(["éclair"]).find("Two ÉCLAIRS") == [Match(0, 4, 11, False)]


def test_no_phrase_reaches_over_a_comma():
    matcher = PhraseMatcher(["beef tomato", "beef", "tomato", "rice noodle", "noodle", "rice"])
    assert [matcher.phrases[match.phrase] for match in matcher.find("beef, tomato; rice (noodles)")] == [
        "beef", "tomato", "rice", "noodle",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        # Marks of vowels belong to their word, in scripts that write blanks.
        ("खीर", "खीरा सलाद", False),
        ("नमक", "काला नमक", True),
        ("केला", "काला", False),
        ("ملح", "مِلْح خشن", True),
        ("café", "cafe\u0301 noir", True),
        # Scripts without blanks: phrases are found inside longer runs of letters.
        ("砂糖", "上白砂糖大さじ2", True),
        ("น้ำตาล", "น้ำตาลทราย", True),
        ("砂糖", "砂、糖", False),
        ("か", "が", False),
        # Plurals that are another thing than their singular.
        ("green", "salad greens", False),
        ("greens", "green beans", False),
        ("fries", "fish fry", False),
        ("fries", "fry the onions", False),
        ("fries", "cheesy fries", True),
        ("french fry", "French fries", True),
        ("stir-fry", "stir-fries", True),
        ("crisps", "crisp lettuce", False),
        ("crisps", "potato crisps", True),
        ("apple crisp", "apple crisps", True),
        ("mustard green", "mustard greens", True),
        ("bitter", "angostura bitters", False),
        ("berry", "berries", True),
    ],
)
def test_words_of_any_script_are_whole(phrase, text, found):
    assert bool(PhraseMatcher([phrase]).affirmed(text)) is found


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("zucker", "ohne Zucker"), ("zucker", "ohne Zusatz von Zucker"), ("zucker", "zuckerfrei"), ("sel", "sans sel"),
        ("azúcar", "galletas sin azúcar"), ("砂糖", "砂糖不使用"), ("糖", "不加糖"), ("चीनी", "बिना चीनी"),
        ("gesalzen", "ungesalzene".removesuffix("e")), ("sucre", "sans sucre"), ("sale", "senza sale"),
    ],
)  # fmt: skip
def test_negation_is_known_in_several_languages(phrase, text):
    assert [match.negated for match in PhraseMatcher([phrase]).find(text)] == [True]


def test_words_that_deny_can_be_given():
    matcher = PhraseMatcher(["sukker", "salt"], negation=Negation.of([("before", "foruten"), ("or", "eller")]))
    assert [match.negated for match in matcher.find("foruten sukker eller salt")] == [True, True]
    assert [match.negated for match in matcher.find("without salt")] == [False]
