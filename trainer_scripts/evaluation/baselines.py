"""Baselines beside which every model is reported: shares, the labelling rule, words alone, colours alone."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from dataset_builder.catalogue.matching import PhraseMatcher
from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.choice import make_labeller
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.progress import progress
from trainer_scripts.data.pictures import Pictures, training_picture
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.scores import SMALLEST_PROBABILITY, Score

REGULARISATION = (0.3, 1.0, 3.0, 10.0, 30.0)
COLOUR_LEVELS = 6
HISTOGRAM_SIDE = 64
RULE_CONFIDENCE = 0.9

Features = Any


def shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the share of rows per class, `(classes,)`; for many labels the share of rows that have each."""
    return np.bincount(labels, minlength=classes) / len(labels) if labels.ndim == 1 else labels.mean(axis=0)


def rule_answers(
    titles: Sequence[str], prior: np.ndarray, label_names: Sequence[str], multilabel: bool = False
) -> tuple[np.ndarray, float]:
    """Return the probabilities of the labelling rule from the titles alone, and the share of titles that it labels.

    Where the rule finds no word, the answer is the training shares.

    Args:
        titles: as the model reads them.
        prior: training shares.
        label_names: the flavours.
        multilabel: whether to answer with all flavours that the rule finds; otherwise with the main one.
    """
    labeller = make_labeller()
    # Never 0 or 1, so that the likelihood of a wrong answer stays finite.
    others = (1 - RULE_CONFIDENCE) / (1 if multilabel else len(label_names) - 1)
    answers, labelled = [], 0
    for title in titles:
        label = labeller.label(title, ())
        flavours = label.flavours if multilabel else [label.flavour] if label.flavour is not None else []
        labelled += bool(flavours)
        answers.append(
            np.array([RULE_CONFIDENCE if name in flavours else others for name in label_names]) if flavours else prior
        )
    return np.stack(answers), labelled / len(titles)


def rule_applies(label_names: Sequence[str]) -> bool:
    """Whether the labels are those of the labelling rule."""
    return tuple(label_names) == FLAVOURS


def masked_titles(titles: Sequence[str]) -> list[str]:
    """Return the titles without the words of the labelling rule's lexicon."""
    matcher = PhraseMatcher(sorted({entry.phrase for entry in Lexicon.load().entries}), match="word")
    masked = []
    for title in titles:
        kept, end = [], 0
        for match in matcher.find(title):
            kept.append(title[end : match.start])
            end = match.end
        masked.append(" ".join("".join([*kept, title[end:]]).split()))
    return masked


def bag_of_words(train: Table, selection: Table, test: Table, score: Score, classes: int) -> np.ndarray:
    """Return TF-IDF of words and word pairs with logistic regression; its regularisation is chosen on validation."""
    texts = []
    for table in (train, selection, test):
        assert table.texts is not None
        texts.append(table.texts)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    word = re.compile(vectorizer.token_pattern)
    if any(word.search(text) for text in texts[0]):
        features = [vectorizer.fit_transform(texts[0]), *map(vectorizer.transform, texts[1:])]
    else:
        # The vectorizer refuses texts without a word: one constant feature leaves the training shares.
        features = [np.zeros((len(each), 1)) for each in texts]
    return _regression(features, train, selection, score, classes)


def colour_histogram(pictures: Pictures) -> np.ndarray:
    """Return the square root of each picture's joint histogram of `COLOUR_LEVELS` levels per channel."""
    features = np.zeros((len(pictures), COLOUR_LEVELS**3))
    for row in progress(range(len(pictures)), "colour histograms", "pictures"):
        # One index per pixel: its levels of red, green and blue as digits of one number.
        levels = pictures[row].numpy().reshape(3, -1).astype(int) * COLOUR_LEVELS // 256
        joint = (levels[0] * COLOUR_LEVELS + levels[1]) * COLOUR_LEVELS + levels[2]
        features[row] = np.bincount(joint, minlength=COLOUR_LEVELS**3) / joint.size
    return np.sqrt(features)


def colours(train: Table, selection: Table, test: Table, score: Score, classes: int) -> np.ndarray:
    """Return colour histograms with logistic regression; its regularisation is chosen on validation."""
    prepare = training_picture(HISTOGRAM_SIDE)
    features = [colour_histogram(Pictures(table, prepare)) for table in (train, selection, test)]
    return _regression(features, train, selection, score, classes)


def _regression(features: Sequence[Features], train: Table, selection: Table, score: Score, classes: int) -> np.ndarray:
    """Return the probabilities of the best regression on the test rows, whose features come last."""
    train_x, selection_x, test_x = features
    best: tuple[float, np.ndarray] | None = None
    many = train.labels.ndim == 2
    one_class = not many and len(np.unique(train.labels)) == 1
    for strength in progress(REGULARISATION, "logistic regression", "strengths"):
        # Nothing can be regressed on one class: its share is 1.
        classifier = DummyClassifier() if one_class else LogisticRegression(C=strength, max_iter=1000)
        # One regression per label where a row may have several.
        fitted = (OneVsRestClassifier(classifier) if many else classifier).fit(train_x, train.labels)
        value = score(selection.labels, _spread(fitted, selection_x, many, classes))
        value = value if score.greater_is_better else -value
        if best is None or value > best[0]:
            best = (value, _spread(fitted, test_x, many, classes))
    assert best is not None
    return best[1]


def _spread(fitted: LogisticRegression | OneVsRestClassifier, x: Features, many: bool, classes: int) -> np.ndarray:
    """Return probabilities over the whole label set, 0 for classes that training never saw."""
    found = fitted.predict_proba(x)
    if many:
        return found
    full = np.zeros((found.shape[0], classes))
    full[:, fitted.classes_] = found
    return full


def product_of_singles(
    first: np.ndarray, second: np.ndarray, prior: np.ndarray, divide_by_prior: bool, multilabel: bool = False
) -> np.ndarray:
    """Return the product of two models' probabilities, normalised.

    Args:
        first: probabilities of one model.
        second: probabilities of the other.
        prior: training shares.
        divide_by_prior: whether the prior, which both models hold, is taken out once (naive Bayes).
        multilabel: whether each label has its own probability.
    """
    a, b, p = (np.clip(x, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY) for x in (first, second, prior))
    if multilabel:
        logits = np.log(a / (1 - a)) + np.log(b / (1 - b)) - (np.log(p / (1 - p)) if divide_by_prior else 0)
        return 1 / (1 + np.exp(-logits))
    # Two naive-Bayes factors hold the prior twice.
    joint = a * b / (p if divide_by_prior else 1)
    return joint / joint.sum(axis=1, keepdims=True)
