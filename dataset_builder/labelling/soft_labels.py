"""Soft labels: how accurate each phrase and each method is, estimated from their votes alone.

A compact form of Dawid and Skene, "Maximum likelihood estimation of observer error-rates" (Applied Statistics, 1979),
for labelling functions that vote for one flavour or abstain: labelling function j, when it votes, is right with
probability a_j and otherwise spreads evenly over the other flavours. The posterior of a recipe is
pi_c * s_c * prod_j (a_j if c is the flavour of j else (1 - a_j) / (C - 1)), over the functions that vote, where pi is
the prior of the classes and s the smoothed shares of the recipe's own weighted votes; expectation maximisation
alternates it with the a_j and pi that fit it best. Every phrase of the lexicon is one labelling function, and so is
every pair of a method and the flavour it names. They depend on each other, which makes the posterior overconfident; a
temperature, fitted to reference flavours, corrects that. Without s, and without a floor under a_j, a flavour whose
words occur in recipes of all kinds would never win.

That is the label model of the rule that counts votes. The rule that weighs evidence has soft scores of its own, whose
first flavour is its label: `ShareModel` only calibrates them, and a temperature never changes which is first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix

from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.rule import Label

# (method or "phrase in method", flavour, phrase): a method's own vote has an empty phrase.
Function = tuple[str, str, str]

# Before any vote is seen a function is taken to be right in 7 of 10 cases, with the weight of fifty observations.
_PRIOR_ACCURACY = 0.7
_PRIOR_STRENGTH = 50.0
_CLASS_STRENGTH = 5.0
_ACCURACY_RANGE = (0.5, 0.99)
_ROUNDS = 200
_TOLERANCE = 1e-6
_TEMPERATURES = (0.2, 20.0)
# Of fewer recipes the temperature is mostly chance.
FEWEST_CALIBRATING = 50


def _functions(label: Label) -> Iterator[Function]:
    for method, words in label.votes.items():
        for flavour, phrases in words.items():
            for phrase in phrases:
                yield method, flavour, phrase
    if label.by_ingredients:
        yield "ingredients", label.by_ingredients, ""
    if label.by_title:
        yield "title", label.by_title, ""


@dataclass(frozen=True)
class LabelModel:
    """A fitted label model.

    Attributes:
        accuracies: per labelling function, the estimated probability that its vote is right; 0.7 for one that never
            voted.
        prior: share of each flavour, in the order of `columns.FLAVOURS`.
        temperature: divisor of the log-posterior; 1 where it was not calibrated.
    """

    accuracies: dict[Function, float]
    prior: np.ndarray
    temperature: float = 1.0

    @classmethod
    def fit(cls, labels: Sequence[Label]) -> "LabelModel":
        """Estimate accuracies and prior by expectation maximisation, without any true label.

        Raises:
            ValueError: no labels.
        """
        if not labels:
            raise ValueError("no labels to fit a label model on; give at least one")
        functions, flavour_of, votes = _vote_matrix(labels)
        shares = np.log([label.taste for label in labels])
        spoken = np.asarray(votes.sum(axis=0)).ravel()
        accuracy = np.full(len(functions), _PRIOR_ACCURACY)
        prior = np.full(len(FLAVOURS), 1 / len(FLAVOURS))
        for _ in range(_ROUNDS):
            # Expectation: the posterior of the flavours of each recipe, from the votes and the current accuracies.
            posterior = _softmax(np.log(prior) + shares + votes @ _evidence(accuracy, flavour_of))
            # Maximisation: how often each function is right by that posterior, smoothed towards the prior accuracy. The
            # floor keeps a function from counting against its own flavour.
            right = np.asarray(votes.T @ posterior)[np.arange(len(functions)), flavour_of]
            updated = (right + _PRIOR_ACCURACY * _PRIOR_STRENGTH) / (spoken + _PRIOR_STRENGTH)
            updated = updated.clip(*_ACCURACY_RANGE)
            prior = posterior.sum(axis=0) + _CLASS_STRENGTH / len(FLAVOURS)
            prior /= prior.sum()
            change = np.abs(updated - accuracy).max(initial=0)
            accuracy = updated
            if change < _TOLERANCE:
                break
        return cls(dict(zip(functions, accuracy.tolist(), strict=True)), prior)

    def logits(self, labels: Sequence[Label]) -> np.ndarray:
        """Return `(labels, 5)` log-posteriors up to a constant, before the temperature."""
        functions, flavour_of, votes = _vote_matrix(labels)
        accuracy = np.array([self.accuracies.get(key, _PRIOR_ACCURACY) for key in functions])
        shares = np.log([label.taste for label in labels])
        return np.log(self.prior) + shares + votes @ _evidence(accuracy, flavour_of)

    def scores(self, labels: Sequence[Label]) -> np.ndarray:
        """Return `(labels, 5)` probabilities of the flavours, each row summing to 1."""
        return _softmax(self.logits(labels) / self.temperature)

    def calibrated(self, labels: Sequence[Label], reference: Sequence[str]) -> "LabelModel":
        """Return the same model with the temperature that makes the reference flavours most likely.

        Recipes without any vote take no part. With fewer than `FEWEST_CALIBRATING` others, such as with a lexicon in
        another language than the references, the model stays as it is.

        Source: Guo et al., "On calibration of modern neural networks" (2017), section 4.2.
        """
        temperature = _temperature(self.logits, labels, reference)
        return self if temperature is None else replace(self, temperature=temperature)


@dataclass(frozen=True)
class ShareModel:
    """Soft labels that are the labels' own shares of the evidence, sharpened or flattened by a temperature.

    Attributes:
        temperature: divisor of the logarithm of the shares; 1 where it was not calibrated.
    """

    temperature: float = 1.0

    def logits(self, labels: Sequence[Label]) -> np.ndarray:
        """Return `(labels, 5)` logarithms of the shares, before the temperature."""
        return np.log([label.taste for label in labels])

    def scores(self, labels: Sequence[Label]) -> np.ndarray:
        """Return `(labels, 5)` probabilities of the flavours, each row summing to 1; the label is the first."""
        return self.scores_of(np.array([label.taste for label in labels]))

    def scores_of(self, shares: np.ndarray) -> np.ndarray:
        """Return the probabilities of `(labels, 5)` shares of the evidence, as `scores` does of their labels."""
        return _softmax(np.log(shares) / self.temperature)

    def calibrated(self, labels: Sequence[Label], reference: Sequence[str]) -> "ShareModel":
        """Return the model with the temperature that makes the reference flavours most likely, see `LabelModel`."""
        temperature = _temperature(self.logits, labels, reference)
        return self if temperature is None else replace(self, temperature=temperature)


SoftLabels = LabelModel | ShareModel


def fit_soft_labels(labels: Sequence[Label], rule: str) -> SoftLabels:
    """Return the soft labels of a rule ("weighed" or "votes"), fitted on these labels where it needs fitting.

    Raises:
        ValueError: no labels.
    """
    return ShareModel() if rule == "weighed" else LabelModel.fit(labels)


def _temperature(
    logits_of: Callable[[Sequence[Label]], np.ndarray], labels: Sequence[Label], reference: Sequence[str]
) -> float | None:
    """Return the temperature that makes the reference flavours most likely; None of too few recipes with a vote."""
    known = [(label, flavour) for label, flavour in zip(labels, reference, strict=True) if any(_functions(label))]
    if len(known) < FEWEST_CALIBRATING:
        return None
    logits = logits_of([label for label, _ in known])
    truth = np.array([FLAVOURS.index(flavour) for _, flavour in known])

    def negative_log_likelihood(log_temperature: float) -> float:
        scores = _softmax(logits / np.exp(log_temperature))
        return float(-np.log(scores[np.arange(len(truth)), truth].clip(1e-12)).mean())

    # The logarithm treats temperatures of 2 and 1/2 alike.
    best = minimize_scalar(negative_log_likelihood, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return float(np.exp(best.x))


def _vote_matrix(labels: Sequence[Label]) -> tuple[list[Function], np.ndarray, csr_matrix]:
    """Return the functions that vote, the index of the flavour of each, and the votes `(labels, functions)`."""
    functions = {key: place for place, key in enumerate(dict.fromkeys(f for x in labels for f in _functions(x)))}
    flavour_of = np.array([FLAVOURS.index(flavour) for _, flavour, _ in functions], dtype=np.int64)
    places = [[functions[key] for key in _functions(label)] for label in labels]
    # Rows of a compressed sparse matrix: one column index for every vote.
    ends = np.cumsum([0, *map(len, places)])
    columns = np.array([place for row in places for place in row], dtype=np.int64)
    votes = csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(labels), len(functions)))
    return list(functions), flavour_of, votes


def _evidence(accuracy: np.ndarray, flavour_of: np.ndarray) -> np.ndarray:
    """Return `(functions, 5)`: what a vote of each function adds to the log-posterior of each flavour."""
    # A vote for one flavour adds log a there, and log (1 - a) / 4 at each of the four others.
    evidence = np.repeat(np.log((1 - accuracy) / (len(FLAVOURS) - 1))[:, None], len(FLAVOURS), axis=1)
    evidence[np.arange(len(accuracy)), flavour_of] = np.log(accuracy)
    return evidence


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
