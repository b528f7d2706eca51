"""Every caption score, defined once, on words as `text.words` makes them and against all captions of a picture.

METEOR needs Java and the `meteor` extra, which carries Meteor 1.5; without them it is left out, with a message.
"""

import importlib.util
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.evaluation.scores import CAPTIONS, TOKENS, Formula, Score, mean_of_rows, per_row
from trainer_scripts.tasks.captioning.text import words

LONGEST_NGRAM = 4
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0
METEOR = "meteor"
References = Sequence[Sequence[str]]


def rouge_l(candidates: Sequence[str], references: References) -> np.ndarray:
    """Return per picture the largest ROUGE-L F1 over its captions, 0 to 1."""
    scorer = RougeScorer(["rougeL"])
    return np.array(
        [
            scorer.score_multi(list(of_one), candidate)["rougeL"].fmeasure
            for candidate, of_one in zip(candidates, references, strict=True)
        ]
    )


def ngrams(tokens: Sequence[str], longest: int = LONGEST_NGRAM) -> list[Counter]:
    """Return how often each n-gram occurs, one counter per length from 1 to `longest`."""
    return [
        Counter(tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))
        for size in range(1, longest + 1)
    ]


class CiderD:
    """CIDEr-D (Vedantam, Zitnick and Parikh 2015, section 8): tf-idf weighted n-gram agreement with all references.

    Follows the constants of the authors' code: lengths 1 to 4 averaged, clipped counts, a Gaussian penalty with sigma 6
    on the difference of the numbers of bigrams, times 10. The document frequencies are those of the given references.

    Args:
        references: Captions of each picture.
    """

    def __init__(self, references: References):
        counts = [[ngrams(words(caption)) for caption in of_one] for of_one in references]
        self._frequency: list[Counter] = [Counter() for _ in range(LONGEST_NGRAM)]
        for of_one in counts:
            # The number of pictures with the n-gram in any of their captions.
            for size in range(LONGEST_NGRAM):
                self._frequency[size].update({gram for caption in of_one for gram in caption[size]})
        self._pictures = math.log(len(references))
        self._references = [[self._vector(caption) for caption in of_one] for of_one in counts]

    def _vector(self, counts: list[Counter]) -> tuple[list[dict], list[float], int]:
        """Return tf-idf weights per n-gram length, their norms, and the number of bigrams."""
        weights = [
            {
                gram: count * (self._pictures - math.log(max(1, self._frequency[size][gram])))
                for gram, count in of.items()
            }
            for size, of in enumerate(counts)
        ]
        return weights, [math.sqrt(sum(w * w for w in of.values())) for of in weights], counts[1].total()

    def scores(self, candidates: Sequence[str], pictures: Sequence[int] | None = None) -> np.ndarray:
        """Return CIDEr-D per candidate; candidate `i` is about picture `pictures[i]`, or picture `i`."""
        chosen = range(len(self._references)) if pictures is None else pictures
        found = []
        for candidate, picture in zip(candidates, chosen, strict=True):
            vector = self._vector(ngrams(words(candidate)))
            of_one = self._references[picture]
            found.append(CIDER_SCALE * sum(_agreement(vector, reference) for reference in of_one) / len(of_one))
        return np.array(found)


def _agreement(candidate: tuple, reference: tuple) -> float:
    (theirs, their_norms, their_length), (ours, our_norms, our_length) = reference, candidate
    total = 0.0
    for mine, true, my_norm, true_norm in zip(ours, theirs, our_norms, their_norms, strict=True):
        if my_norm and true_norm:
            # Clipped: a caption gains nothing by repeating an n-gram of the reference.
            shared = sum(min(weight, true[gram]) * true[gram] for gram, weight in mine.items() if gram in true)
            total += shared / (my_norm * true_norm)
    # A caption of another length than the reference is scored down.
    penalty = math.exp(-((our_length - their_length) ** 2) / (2 * CIDER_SIGMA**2))
    return total * penalty / LONGEST_NGRAM


def distinct(candidates: Sequence[str], size: int) -> float:
    """Return the share of different ones among all n-grams of all captions."""
    grams = [gram for candidate in candidates for gram in ngrams(words(candidate), size)[size - 1].elements()]
    return len(set(grams)) / len(grams) if grams else 0.0


def identical(candidates: Sequence[str]) -> float:
    """Return the share of pictures that get the most frequent caption."""
    return Counter(candidates).most_common(1)[0][1] / len(candidates)


def _bleu_rows(references: References, candidates: Sequence[str]) -> np.ndarray:
    """Return per picture clipped and all n-grams of 1 to 4, its words and the closest reference's, `(rows, 10)`."""
    metric = BLEU(lowercase=True, tokenize="13a", smooth_method="none", effective_order=True)
    # Counts and lengths add up over pictures: corpus BLEU of every resample is a formula of their sums.
    found = [metric.sentence_score(caption, list(true)) for caption, true in zip(candidates, references, strict=True)]
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], dtype=np.float64)


def _bleu_formula(longest: int) -> Formula:
    def formula(sums: np.ndarray) -> np.ndarray:
        sums = np.asarray(sums, dtype=np.float64)
        hits, counts = sums[..., :longest], sums[..., LONGEST_NGRAM : LONGEST_NGRAM + longest]
        with np.errstate(divide="ignore", invalid="ignore"):
            # The geometric mean of the precisions, and 0 where one of them is 0.
            precision = np.log(np.where(hits > 0, hits / counts, 0)).mean(axis=-1)
            # The logarithm of the brevity penalty: 0 for captions that are long enough.
            brevity = np.minimum(0, 1 - sums[..., -1] / sums[..., -2])
            return np.nan_to_num(100 * np.exp(precision + brevity))

    return formula


def _rouge_rows(references: References, candidates: Sequence[str]) -> np.ndarray:
    return per_row(rouge_l(candidates, references))


# Baselines and ablations are scored against the same references, whose n-grams take long to count.
_cider_of = lru_cache(maxsize=2)(CiderD)


def _cider_rows(references: References, candidates: Sequence[str]) -> np.ndarray:
    return per_row(_cider_of(tuple(tuple(of_one) for of_one in references)).scores(candidates))


def _word_rows(references: References, candidates: Sequence[str]) -> np.ndarray:
    return per_row(np.array([len(words(candidate)) for candidate in candidates], dtype=np.float64))


def _token_rows(_: np.ndarray, sums: np.ndarray) -> np.ndarray:
    return sums


def _per_token(column: int) -> Formula:
    return lambda sums: sums[..., column] / sums[..., 2]


_BLEU = "sacrebleu corpus BLEU 0..100, lower case, tokenizer 13a, no smoothing, all captions of a picture as references"
_FORCED = "teacher-forced on every given caption, end token in, padding out, in the captioner's own tokens"
CAPTION_SCORES: tuple[Score, ...] = (
    Score(
        "cider",
        "CIDEr-D x 10, mean over pictures, document frequencies of the scored references",
        _cider_rows,
        mean_of_rows,
        part=CAPTIONS,
        highest=np.inf,
    ),
    *(
        Score(
            f"bleu_{longest}",
            f"{_BLEU}, up to {longest}-grams",
            _bleu_rows,
            _bleu_formula(longest),
            part=CAPTIONS,
            highest=100.0,
        )
        for longest in range(1, LONGEST_NGRAM + 1)
    ),
    Score(
        "rouge_l",
        "rouge_score ROUGE-L F1, the best over a picture's captions, mean over pictures",
        _rouge_rows,
        mean_of_rows,
        part=CAPTIONS,
    ),
    Score(
        "cross_entropy", f"nats per token, {_FORCED}", _token_rows, _per_token(0), None, False, TOKENS, highest=np.inf
    ),
    Score(
        "perplexity",
        "exponential of cross_entropy",
        _token_rows,
        lambda sums: np.exp(_per_token(0)(sums)),
        None,
        False,
        TOKENS,
        highest=np.inf,
    ),
    Score(
        "token_accuracy", f"share of tokens that are the likeliest, {_FORCED}", _token_rows, _per_token(1), part=TOKENS
    ),
    *(
        Score(
            f"distinct_{size}",
            f"different {what} among all {what} of the generated captions",
            None,
            None,
            lambda _, captions, size=size: distinct(captions, size),  # type: ignore[misc]
            part=CAPTIONS,
        )
        for size, what in ((1, "words"), (2, "word pairs"))
    ),
    Score(
        "identical",
        "share of pictures that get the most frequent generated caption",
        None,
        None,
        lambda _, captions: identical(list(captions)),
        False,
        CAPTIONS,
    ),
    Score(
        "words", "mean number of words of a generated caption", _word_rows, mean_of_rows, part=CAPTIONS, highest=np.inf
    ),
)

# The scores of captions as texts; the others are of the tokens that the captioner expects.
TEXT_SCORES = tuple(score for score in CAPTION_SCORES if score.part == CAPTIONS)

METEOR_SCORE = Score(
    METEOR,
    "METEOR 1.5, English, 0..1, lower case, no punctuation, statistics of all pictures added up",
    None,
    None,
    part=CAPTIONS,
)


SINGLE_PICTURE = "cider is 0 for a single picture: each of its words is in every scored picture, and so weighs nothing"
ALL_ALIKE = "cider is 0 where all pictures have the same words: what is in every scored picture weighs nothing"


def why_no_cider(references: References) -> str | None:
    """Return why CIDEr is 0 whatever the captions say; None where it need not be."""
    if len(references) == 1:
        return SINGLE_PICTURE
    each = {frozenset(word for caption in of_one for word in words(caption)) for of_one in references}
    return ALL_ALIKE if len(each) == 1 else None


def text_scores(candidates: Sequence[str], references: References) -> dict[str, float]:
    """Return all scores of generated captions.

    Raises:
        ValueError: No caption, a picture without references, or another number of captions than pictures.
    """
    if not candidates or len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions against {len(references)} pictures; give one caption per picture")
    if not all(references):
        raise ValueError("a picture has no reference caption; leave it out")
    if reason := why_no_cider(references):
        warnings.warn(reason, stacklevel=2)
    return values(TEXT_SCORES, {CAPTIONS: (references, list(candidates))})


def values(scores: Sequence[Score], parts: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Return every score that has a truth and an answer in `parts`, by name; statistics are computed once."""
    rows = len(next(iter(parts.values()))[1])
    grouped = GroupedScores([str(row) for row in range(rows)], parts)
    return {score.name: grouped.value(score) for score in scores if grouped.has(score)}


def meteor_missing() -> str | None:
    """Return a message about the missing part of METEOR; None when it can be computed."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "METEOR left out: pip install 'flavour-fusion[meteor]'"
    return None if shutil.which("java") else "METEOR left out: it needs java on the PATH"


def meteor(answers: Mapping[str, Sequence[str]], references: References) -> dict[str, dict[str, float]]:
    """Return METEOR 1.5 (Denkowski and Lavie 2014) of several sets of captions, 0 to 1; nothing where it is missing.

    Args:
        answers: name -> one caption per picture.
        references: captions of each picture.

    Returns:
        Name -> `{"meteor": score}`, the statistics of all pictures added up before any division.
    """
    if meteor_missing():
        return {name: {} for name in answers}
    from pycocoevalcap.meteor.meteor import Meteor

    # Starting Java takes seconds, so that one process scores all sets of captions.
    program = Meteor()
    truth = {row: [_plain(caption) for caption in captions] for row, captions in enumerate(references)}
    return {
        name: {METEOR: float(program.compute_score(truth, {row: [_plain(text)] for row, text in enumerate(texts)})[0])}
        for name, texts in answers.items()
    }


def _plain(caption: str) -> str:
    """Return the words that all scores compare, in one line: the program would count punctuation as words."""
    return " ".join(words(caption))
