"""Tokenizers trained from scratch on the training split, for models without a pretrained text encoder."""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from dataset_builder.errors import BadInputError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = [PAD, UNKNOWN, START, END, MASK]
RARE_WORD = 2
WORD_START = "\u2581"


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
    tokenizer = word_tokenizer(texts, kind, vocabulary_size, SPECIAL_TOKENS, UNKNOWN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)]
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


def word_tokenizer(
    texts: Sequence[str], kind: str, vocabulary_size: int, special_tokens: Sequence[str], unknown: str
) -> Tokenizer:
    """Return a lower-casing tokenizer of `wordpiece` or `words` kind; the caller adds begin and end tokens."""
    if kind == "wordpiece":
        vocabulary = wordpiece_vocabulary(texts, vocabulary_size, special_tokens)
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if kind == "words":
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocabulary_size,
            min_frequency=RARE_WORD,
            special_tokens=list(special_tokens),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wordpiece_vocabulary(texts: Sequence[str], vocabulary_size: int, special_tokens: Sequence[str]) -> dict[str, int]:
    """Return a WordPiece vocabulary, the same for the same texts in every process.

    The library's WordPiece trainer numbers pieces in the order of a randomised hash table, so that two runs with one
    seed would learn different models. Its BPE trainer does not, and the pieces it learns are turned into WordPiece's.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        # The mark tells pieces that begin a word from those that continue one.
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(WORD_START)]
    )
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary_size, show_progress=False))
    # In the order of learning: frequent pieces first, which the cut at the end keeps.
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    alphabet = [piece for piece, _ in learned if len(piece) == 1 and piece != WORD_START]
    # Every letter alone and as a continuation, so that any word can be spelled.
    pieces = [*special_tokens, *alphabet, *(f"##{letter}" for letter in alphabet)]
    for piece, _ in learned:
        if len(piece) > 1:
            pieces.append(piece[1:] if piece.startswith(WORD_START) else f"##{piece}")
    return {piece: number for number, piece in enumerate(list(dict.fromkeys(pieces))[:vocabulary_size])}
