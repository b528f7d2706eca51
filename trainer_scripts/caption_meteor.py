"""METEOR of captions, where its program is at hand: Java, and the `meteor` extra, which carries Meteor 1.5."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence

from trainer_scripts.caption_scores import METEOR, References
from trainer_scripts.caption_text import words


def meteor_missing() -> str | None:
    """Return what METEOR lacks here, in words; None when it can be computed."""
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

    program = Meteor()
    truth = {row: [_plain(caption) for caption in captions] for row, captions in enumerate(references)}
    return {
        name: {METEOR: float(program.compute_score(truth, {row: [_plain(text)] for row, text in enumerate(texts)})[0])}
        for name, texts in answers.items()
    }


def _plain(caption: str) -> str:
    """Return the words that all scores compare, in one line: the program would count punctuation as words."""
    return " ".join(words(caption))
