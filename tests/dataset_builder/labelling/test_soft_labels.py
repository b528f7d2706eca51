import numpy as np
import pytest

from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.calibration import plot_reliability, reliability
from dataset_builder.labelling.rule import Label
from dataset_builder.labelling.soft_labels import LabelModel

WORDS = 6


def make_label(ingredient_words, title_words):
    """Build a label by hand: words are (flavour, phrase) pairs, each one vote."""
    votes = {}
    shares = np.full(len(FLAVOURS), 0.5)
    for method, words in (("ingredients", ingredient_words), ("title", title_words)):
        votes[method] = {name: [phrase for flavour, phrase in words if flavour == name] for name in FLAVOURS}
        for flavour, _ in words:
            shares[FLAVOURS.index(flavour)] += 1
    best = FLAVOURS[int(shares.argmax())] if ingredient_words or title_words else None
    return Label(best, (), tuple(shares / shares.sum()), "agree", votes, best if ingredient_words else None, None)


@pytest.fixture(scope="module")
def world():
    """Recipes with a known flavour whose words are right with known probability: word 0 seldom, the others often."""
    generator = np.random.default_rng(0)
    labels, truth = [], []
    for _ in range(1500):
        flavour = int(generator.choice(len(FLAVOURS), p=[0.3, 0.25, 0.2, 0.15, 0.1]))
        words = []
        for word in range(WORDS):
            if generator.random() < 0.5:  # abstains else
                right = generator.random() < (0.3 if word == 0 else 0.85)
                voted = flavour if right else int(generator.choice([c for c in range(5) if c != flavour]))
                words.append((FLAVOURS[voted], f"word {word}"))
        labels.append(make_label(words[:4], words[4:]))
        truth.append(FLAVOURS[flavour])
    return labels, truth


def test_accuracies_are_found_without_truth(world):
    model = LabelModel.fit(world[0])
    weak = [a for (_, _, phrase), a in model.accuracies.items() if phrase == "word 0"]
    strong = [a for (_, _, phrase), a in model.accuracies.items() if phrase not in ("word 0", "")]
    assert max(weak) < 0.62
    assert min(strong) > max(weak)
    assert np.mean(strong) == pytest.approx(0.82, abs=0.06)


def test_scores_sum_to_one_and_find_the_truth(world):
    labels, truth = world
    scores = LabelModel.fit(labels).scores(labels)
    assert scores.shape == (len(labels), len(FLAVOURS))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores > 0).all()
    assert np.mean([FLAVOURS[place] == name for place, name in zip(scores.argmax(axis=1), truth, strict=True)]) > 0.8


def test_no_flavour_is_explained_away(world):
    assert LabelModel.fit(world[0]).prior == pytest.approx([0.3, 0.25, 0.2, 0.15, 0.1], abs=0.08)


def test_calibration_lowers_the_error_and_keeps_the_order(world):
    labels, truth = world
    model = LabelModel.fit(labels)
    calibrated = model.calibrated(labels[:700], truth[:700])
    assert calibrated.temperature != 1
    before, after = model.scores(labels[700:]), calibrated.scores(labels[700:])
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert reliability(after, truth[700:]).error <= reliability(before, truth[700:]).error
    assert reliability(after, truth[700:]).error < 0.08


def test_unseen_words_and_silence_have_an_answer(world):
    model = LabelModel.fit(world[0])
    scores = model.scores([make_label([("sour", "never seen")], []), make_label([], [])])
    assert FLAVOURS[scores[0].argmax()] == "sour"
    np.testing.assert_allclose(scores[1], model.prior, atol=1e-6)


def test_reliability_of_a_known_table():
    scores = np.array([[0.9, 0.1, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [1.0, 0, 0, 0, 0]])
    figures = reliability(scores, ["sweet", "salty", "sweet", "sweet"])
    assert figures.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 1]
    assert figures.accuracy[8] == pytest.approx(1 / 2)
    assert figures.confidence[8] == pytest.approx(0.9)
    assert figures.error == pytest.approx((0.4 + 0.8) / 4)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no labels to fit a label model on"):
        LabelModel.fit([])
    with pytest.raises(ValueError, match="1 rows of scores and 0 references"):
        reliability(np.ones((1, 5)) / 5, [])


def test_the_diagram_is_drawn(world, tmp_path):
    labels, truth = world
    path = tmp_path / "reliability.png"
    plot_reliability({"as estimated": reliability(LabelModel.fit(labels).scores(labels), truth)}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
