"""The rules behind a comparison: what can be compared, how ablations draw rows, what the trivial baselines say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dataset_builder.errors import BadInputError
from trainer_scripts.evaluation.ablations import drawn_rows, partners
from trainer_scripts.evaluation.baselines import bag_of_words, masked_titles, product_of_singles, rule_answers, shares
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.predictions import Predictions, check_comparable
from trainer_scripts.evaluation.scores import classification_scores, definitions, multilabel_scores
from trainer_scripts.tasks.classification.comparing import conflicting

NAMES = ("sweet", "salty", "sour", "bitter", "umami")


def result(labels, seed: int = 0, threshold: float = 0.5, names: str = "ab"):
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels)
    ids = [str(index) for index in range(len(labels))]
    predictions = Predictions.of_classes(ids, ids, labels, generator.random(labels.shape))
    scores = multilabel_scores(names, Decision(threshold))
    return predictions, {"label_names": list(names), "definitions": definitions(scores)}


def test_results_on_the_same_rows_by_the_same_definitions_are_comparable(tmp_path):
    first, second = result([[0, 1], [1, 0]]), result([[0, 1], [1, 0]], seed=1)
    first[0].save(tmp_path)
    loaded = Predictions.load(tmp_path)
    assert loaded.rows_sha256() == first[0].rows_sha256()
    check_comparable({"one": (loaded, first[1]), "two": second})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result([[0, 1], [1, 1]]), "scored on different rows or labels"),
        (result([[0, 1], [1, 0]], names="ac"), "different label sets"),
        (result([[1, 0], [0, 1]], names="ba"), "count their labels in different orders"),
        (result([[0, 1], [1, 0]], threshold=0.3), "define samples_f1 differently"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(other, message):
    with pytest.raises(BadInputError, match=message):
        check_comparable({"one": result([[0, 1], [1, 0]]), "two": other})


def test_partners_are_of_other_groups_and_each_is_used_once():
    groups = [f"dish {index // 3}" for index in range(30)]
    order = partners(groups, seed=0)
    assert sorted(order) == list(range(30))
    assert all(groups[row] != groups[partner] for row, partner in enumerate(order))


def test_ablations_may_run_on_whole_groups_of_a_part_of_the_rows():
    groups = [f"dish {index // 3}" for index in range(30)]
    rows = drawn_rows(groups, 10)
    assert len(rows) == 9
    assert all(rows.tolist().count(row) == 1 and groups.count(groups[row]) == 3 for row in rows)
    assert {groups[row] for row in range(30) if row not in rows}.isdisjoint(groups[row] for row in rows)
    assert drawn_rows(groups, 30).tolist() == list(range(30))
    predictions = Predictions.of_classes([str(i) for i in range(30)], groups, np.arange(30) % 2, np.eye(30, 2))
    chosen = predictions.select(rows)
    assert chosen.ids == [str(row) for row in rows]
    assert chosen.labels.tolist() == [row % 2 for row in rows]


class Rows:
    def __init__(self, groups, labels):
        self.ids, self.groups, self.labels = groups, groups, labels

    def __len__(self):
        return len(self.ids)


def test_swapped_pictures_are_held_against_both_labels():
    groups = [f"dish {index}" for index in range(12)]
    labels = np.arange(12) % 3
    order = partners(groups, seed=0)
    table = Rows(groups, labels)
    # A model that follows the picture alone, asked with the pictures of its partners.
    by_text, by_image = conflicting(table, Predictions.of_classes(groups, groups, labels, np.eye(3)[labels[order]]))
    accuracy = classification_scores("abc")[0]
    assert len(by_text.ids) == (labels != labels[order]).sum() > 0
    assert accuracy(by_text.labels, by_text.probabilities) == 0
    assert accuracy(by_image.labels, by_image.probabilities) == 1


def test_the_rule_reads_the_title_alone_and_may_be_silent():
    prior = np.full(5, 0.2)
    probabilities, spoken = rule_answers(["Lemon vinegar pickle", "A dish"], prior, NAMES)
    assert spoken == 0.5
    assert NAMES[probabilities[0].argmax()] == "sour"
    assert (probabilities[1] == prior).all()


def test_titles_lose_the_words_of_the_rule_and_nothing_else():
    assert "lemon" not in masked_titles(["Lemon and table"])[0].lower()
    assert "table" in masked_titles(["Lemon and table"])[0]


@pytest.mark.parametrize(
    ("labels", "texts"),
    [([2, 2, 2, 2], ["a cake", "broth", "pie", "soup"]), ([0, 1, 1, 1], ["", "!", "a", ""])],
    ids=["one class", "no word"],
)
def test_a_bag_of_words_that_can_learn_nothing_says_the_training_shares(labels, texts):
    table: Any = SimpleNamespace(labels=np.array(labels), texts=texts)
    said = bag_of_words(table, table, table, classification_scores("abc")[0], 3)
    assert said == pytest.approx(np.tile(shares(table.labels, 3), (4, 1)), abs=1e-4)


def test_product_of_singles_takes_the_prior_out_once():
    first = second = np.array([[0.6, 0.4]])
    prior = np.array([0.6, 0.4])
    assert product_of_singles(first, second, prior, True) == pytest.approx(prior[None], abs=1e-6)
    assert product_of_singles(first, second, prior, False)[0, 0] > 0.6
