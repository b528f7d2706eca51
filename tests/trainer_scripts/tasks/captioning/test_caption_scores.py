"""Caption scores against references made by hand or by another library, mirrored captions, the tokenizer."""

import math
from collections import Counter

import numpy as np
import pytest

from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.evaluation.scores import NAMES
from trainer_scripts.tasks.captioning.scores import (
    TEXT_SCORES,
    CiderD,
    distinct,
    identical,
    meteor,
    meteor_missing,
    ngrams,
    rouge_l,
    text_scores,
    values,
)
from trainer_scripts.tasks.captioning.text import mirrored, train_caption_tokenizer, words
from trainer_scripts.tasks.captioning.truth import (
    counts_in,
    naming_scores,
    places_in,
    relations_in,
)

REFERENCES = [
    ["A plate of rice, two eggs and feta.", "Two eggs on rice with feta.", "The feta is to the left of the rice."],
    ["Three olives in a bowl.", "A bowl with olives."],
    ["A glass of espresso with 1 ice cube.", "Espresso in a glass.", "Mostly espresso, in a glass."],
    ["A board of bread and feta."],
]
CANDIDATES = ["Two eggs and rice on a plate.", "Three olives in a bowl.", "A glass of milk.", "The dog runs."]


def plain_cider(candidates, references):
    """CIDEr-D written out with dense vectors, as its paper states it."""
    grams = sorted({g for of_one in references for r in of_one for c in ngrams(words(r)) for g in c})
    grams += sorted({g for one in candidates for c in ngrams(words(one)) for g in c} - set(grams))
    place = {gram: number for number, gram in enumerate(grams)}
    seen = np.zeros(len(grams))
    for of_one in references:
        for number in {place[g] for r in of_one for c in ngrams(words(r)) for g in c}:
            seen[number] += 1
    weight = math.log(len(references)) - np.log(np.maximum(1, seen))
    size = np.array([len(gram) for gram in grams])

    def vector(text):
        found = np.zeros(len(grams))
        for number, count in Counter(place[g] for c in ngrams(words(text)) for g in c.elements()).items():
            found[number] = count
        return found * weight

    scores = []
    for candidate, of_one in zip(candidates, references, strict=True):
        ours, total = vector(candidate), 0.0
        for reference in of_one:
            theirs = vector(reference)
            gap = len(words(candidate)) - len(words(reference))
            for n in range(1, 5):
                a, b = ours * (size == n), theirs * (size == n)
                norm = np.linalg.norm(a) * np.linalg.norm(b)
                total += (np.minimum(a, b) @ b / norm if norm else 0.0) * math.exp(-(gap**2) / 72) / 4
        scores.append(10 * total / len(of_one))
    return np.array(scores)


def test_cider_equals_its_formula_written_out():
    ours = CiderD(REFERENCES).scores(CANDIDATES)
    np.testing.assert_allclose(ours, plain_cider(CANDIDATES, REFERENCES), rtol=1e-9)
    assert ours[1] > ours[0] > ours[3] == 0


def test_cider_of_one_picture_may_be_asked_alone():
    cider = CiderD(REFERENCES)
    assert cider.scores([CANDIDATES[1]], [1])[0] == cider.scores(CANDIDATES)[1]


def bleu(candidates, references, longest=4):
    return next(score for score in TEXT_SCORES if score.name == f"bleu_{longest}")(references, candidates)


def test_bleu_is_that_of_a_hand_count():
    # Unigrams of "the the cat": "the" clipped to 1, "cat" 1, of 3; as long as the reference, so no penalty.
    assert bleu(["the the cat"], [["the cat sat"]], 1) == pytest.approx(100 * 2 / 3)
    # Too short by half: exp(1 - 4/2).
    assert bleu(["the cat"], [["the cat sat down"]], 1) == pytest.approx(100 * math.exp(-1))
    assert bleu(CANDIDATES, [[*each] for each in REFERENCES], 1) > bleu(CANDIDATES, REFERENCES, 2) > 0


def test_bleu_adds_counts_up_over_pictures_and_is_not_divided_by_tokens():
    # Pictures of different lengths: 1 of 1 and 0 of 3 words are 1 of 4, not the mean of 100 and 0.
    assert bleu(["a", "x y z"], [["a"], ["p q r"]], 1) == pytest.approx(25.0)
    assert bleu(["a b c d e"] * 10, [["a b c d e"]] * 10) == pytest.approx(100.0)


def test_bleu_takes_the_best_of_several_references():
    assert bleu(["two eggs on rice"], [["one", "two eggs on rice"]]) == pytest.approx(100.0)


def test_rouge_l_is_that_of_a_hand_count():
    # Longest common subsequence of "a b c d" and "a c d e f g": 3; precision 3/4, recall 3/6.
    precision, recall = 3 / 4, 3 / 6
    expected = 2 * precision * recall / (precision + recall)
    assert rouge_l(["a b c d"], [["x", "a c d e f g"]])[0] == pytest.approx(expected)


def test_variety():
    assert distinct(["a b a", "a b"], 1) == 2 / 5
    assert distinct(["a b a", "a b"], 2) == 2 / 3
    assert identical(["x", "x", "y", "z"]) == 0.5


def test_scores_need_one_caption_per_picture():
    with pytest.raises(ValueError, match="3 captions against 4 pictures"):
        text_scores(CANDIDATES[:3], REFERENCES)
    with pytest.raises(ValueError, match="has no reference caption"):
        text_scores(["a"], [[]])


def test_metric_module_loads_offline_and_agrees():
    import evaluate

    metric = evaluate.load("trainer_scripts/metrics/flavour_captioning")
    found = metric.compute(predictions=CANDIDATES, references=REFERENCES)
    assert found == pytest.approx(text_scores(CANDIDATES, REFERENCES))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The feta is to the left of the rice.", "The feta is to the right of the rice."),
        ("The olives are at the top left and the egg is at the bottom right.",
         "The olives are at the top right and the egg is at the bottom left."),
        ("A man holds a cup in his right hand.", "A man holds a cup in his left hand."),
        ("A dog on the left, a cat on the right.", "A dog on the right, a cat on the left."),
        ("The leftmost plate is empty.", "The rightmost plate is empty."),
        ("A LEFT-handed player.", "A RIGHT-handed player."),
        ("A bright copyright sign upright in the delight.", "A bright copyright sign upright in the delight."),
        ("Two dogs run.", "Two dogs run."),
        ("A boy runs from left to right.", "A boy runs from right to left."),
        # What nobody can mirror for sure is not mirrored at all.
        ("A dog right behind a man.", None),
        ("The only slice left.", None),
        ("A man has left the house.", None),
        ("He waits for the right moment.", None),
        ('A shirt with "LOVE" on the left side.', None),
        ("The pot is turned clockwise.", None),
    ],
)  # fmt: skip
def test_captions_are_mirrored_or_their_picture_is_not_flipped(caption, expected):
    assert mirrored(caption) == expected
    if expected is not None:
        assert mirrored(expected) == caption


@pytest.mark.parametrize("kind", ["wordpiece", "words"])
def test_tokenizer_keeps_digits_and_short_words_and_prints_no_special_token(kind):
    captions = [caption for of_one in REFERENCES for caption in of_one] * 2 + ["A start and an end of 12 endives."] * 2
    tokenizer = train_caption_tokenizer(captions, kind, 200, 20)
    ids = tokenizer("A glass of espresso with 1 ice cube.")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert "1" in text.split()
    assert text.split()[0] == "a"
    assert "[" not in text
    # "start" and "end" are words like any other, not control tokens.
    again = tokenizer.decode(tokenizer("A start and an end of 12 endives.")["input_ids"], skip_special_tokens=True)
    assert again.replace(" .", ".") == "a start and an end of 12 endives."
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4


def test_truth_of_names_counts_and_places():
    caption = "A bed of rice, three slices of cucumber and two fried eggs on a plate."
    assert counts_in(caption) == {"cucumber": 3, "fried egg": 2}
    assert counts_in("A plate of olives and a layer of rice.") == {}
    assert places_in("The egg is at the top left and the rice is all over.") == {
        "egg": "at the top left",
        "rice": "all over",
    }
    assert relations_in("The egg is to the left of the rice.") == [("egg", "to the left of", "rice")]
    visible = [frozenset({"rice", "cucumber"}), frozenset({"fried egg"})]
    scores = values(naming_scores(), {NAMES: (visible, [caption, "A fried egg on a plate."])})
    assert scores["ingredient_precision"] == 3 / 4
    assert scores["ingredient_recall"] == 1
    assert scores["only_visible"] == 0.5


def test_interval_of_f1_holds_its_value_and_a_lead_is_paired():
    visible = [frozenset({"rice"}), frozenset({"fried egg"}), frozenset({"feta"})] * 20
    good = ["Rice.", "A fried egg.", "Feta."] * 20
    bad = ["Rice."] * 60
    groups = [str(number // 2) for number in range(60)]
    mine, other = (GroupedScores(groups, {NAMES: (visible, captions)}) for captions in (good, bad))
    f1 = next(score for score in naming_scores() if score.name == "ingredient_f1")
    interval = other.interval(f1)
    assert interval.value == pytest.approx(1 / 3)
    assert interval.low < interval.value < interval.high
    lead = mine.difference(other, f1)
    assert lead.value == pytest.approx(2 / 3)
    assert lead.above_zero


@pytest.mark.slow
def test_meteor_is_the_reference_program():
    if meteor_missing():
        pytest.skip(meteor_missing())
    answers = {"same": ["a bed of rice with peas"], "other": ["two eggs"], "none": [""]}
    found = meteor(answers, [("A bed of rice with\npeas.", "Rice and peas.")])
    assert found["same"]["meteor"] > 0.9
    assert found["other"]["meteor"] < 0.2
    assert found["none"]["meteor"] == 0


def test_meteor_is_left_out_with_a_word_where_it_cannot_be(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert "METEOR left out" in meteor_missing()
    assert meteor({"captions": ["rice"]}, [["rice"]]) == {"captions": {}}
