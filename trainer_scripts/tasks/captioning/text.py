"""Captions as text: mirrored with their picture, cut into words for scoring, turned into tokens for training."""

import re
from collections.abc import Sequence

from tokenizers import decoders, processors
from transformers import PreTrainedTokenizerFast

from dataset_builder.errors import BadInputError
from trainer_scripts.data.tokenizer import word_tokenizer

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[BOS]", "[EOS]"
SPECIAL_TOKENS = [PAD, UNKNOWN, BEGIN, END]

_SIDE = re.compile(r"\b(left|right)(most|wards?)?\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}
# Words before "left" and "right" where these are sides of something, and words after them.
_BEFORE = re.compile(
    r"\b(the|a|his|her|its|their|my|your|our|far|top|bottom|upper|lower|front|back|rear|cent(?:re|er)|middle|to|from)\W+$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\W*(sides?|hand(?:ed)?|half|corner|edge|arms?|legs?|foot|feet|eye|ear|cheek|shoulder|knee|elbow|wrist|paw|wing|"
    r"lane|third|quarter)\b",
    re.IGNORECASE,
)
# "the right way", "the left overs", "the right moment": not the sides of anything.
_NOT_AFTER = re.compile(
    r"\W*(way|time|moment|person|place|thing|one|size|amount|answer|overs?|alone|behind|now)\b", re.IGNORECASE
)
# The mirrored form of these is ambiguous.
_CHIRAL = re.compile(
    r"clockwise|\"|“|”|\b(reads|reading|says|saying|lettering|stage left|stage right)\b", re.IGNORECASE
)

# Any word of a side, a height or a direction may be false once a picture from above is turned.
_DIRECTION = re.compile(
    r"\b(left|right|top|bottom|above|below|upper|lower|under|beneath|over|front|behind|back|up|down|north|south|east|west"
    r"|vertical|horizontal|upright|sideways|standing|hanging|o'clock)(most|wards?|ly)?\b",
    re.IGNORECASE,
)


def names_no_side(caption: str) -> bool:
    """Whether the caption stays true of a picture from above however that is turned.

    >>> names_no_side("Three slices of cucumber all over the plate."), names_no_side("The feta is above the olives.")
    (True, False)
    """
    return not (_DIRECTION.search(caption.replace("all over", "")) or _CHIRAL.search(caption))


def mirrored(caption: str) -> str | None:
    """Return the caption that is true of the mirrored picture, or `None` where it is ambiguous.

    Left and right change places where they are sides; a caption in which they may mean something else ("has left",
    "right behind"), or that quotes writing, has no mirrored form, and its picture must not be flipped.

    >>> mirrored("The feta is to the left of the olives.")
    'The feta is to the right of the olives.'
    >>> mirrored("The Left half is rice, the rightmost olive is black.")
    'The Right half is rice, the leftmost olive is black.'
    >>> mirrored("A man right behind a dog.") is None
    True
    """
    if _CHIRAL.search(caption):
        return None
    pieces, end = [], 0
    for match in _SIDE.finditer(caption):
        # "leftmost" is always a side; "left" alone only beside words that say so.
        if not match.group(2) and not _is_side(caption, match):
            return None
        word = match.group(1)
        other = _OTHER[word.lower()]
        # The new word takes the case of the old one.
        other = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
        pieces += [caption[end : match.start()], other, match.group(2) or ""]
        end = match.end()
    return "".join([*pieces, caption[end:]])


def _is_side(caption: str, match: re.Match) -> bool:
    before, after = caption[: match.start()], caption[match.end() :]
    if _NOT_AFTER.match(after):
        return False
    return bool(_AFTER.match(after) or _BEFORE.search(before))


def words(caption: str) -> list[str]:
    """Return the words that scores compare: lower case, digits and short words kept, punctuation dropped.

    >>> words("A bed of rice, 2 eggs & half a lemon.")
    ['a', 'bed', 'of', 'rice', '2', 'eggs', 'half', 'a', 'lemon']
    """
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", caption.lower())


def train_caption_tokenizer(
    captions: Sequence[str], kind: str, vocabulary_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Return a lower-casing tokenizer with begin, end and padding tokens of its own, trained on these captions alone.

    Args:
        captions: Captions of the training split.
        kind: `wordpiece` (sub-words) or `words` (whole words that occur at least twice; others are unknown).
        vocabulary_size: Largest number of entries, special tokens included.
        max_length: Longest caption, special tokens included.
    """
    if not captions:
        raise BadInputError("no caption to train a tokenizer on")
    tokenizer = word_tokenizer(captions, kind, vocabulary_size, SPECIAL_TOKENS, UNKNOWN)
    if kind == "wordpiece":
        tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (BEGIN, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        padding_side="right",
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
