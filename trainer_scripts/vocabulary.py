"""Tokenizers trained from scratch on the training split, for models without a pretrained text encoder."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from dataset_builder.errors import BadInputError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = [PAD, UNKNOWN, START, END, MASK]
RARE_WORD = 2


def train_tokenizer(texts: Sequence[str], kind: str, vocabulary_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing tokenizer trained on these texts alone.

    Args:
        texts: texts of the training split.
        kind: `wordpiece` (sub-words) or `words` (whole words that occur at least twice; others are unknown).
        vocabulary_size: largest number of entries, special tokens included.
        max_length: longest sequence, special tokens included.
    """
    if not texts:
        raise BadInputError("no text to train a tokenizer on")
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=vocabulary_size, special_tokens=SPECIAL_TOKENS, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocabulary_size, min_frequency=RARE_WORD, special_tokens=SPECIAL_TOKENS, show_progress=False
        )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=START,
        sep_token=END,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
    )
