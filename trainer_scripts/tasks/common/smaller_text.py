"""A pretrained text encoder with fewer word pieces and fewer layers: where a small student of a large model begins.

Pieces that are kept keep their vectors, so that a text of such pieces is read as before; other words are spelled by
shorter ones. Layers that are kept are spread evenly, as in DistilBERT (Sanh et al. 2019, "DistilBERT, a distilled
version of BERT", section 2).
"""

import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerFast

from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.settings.arguments import Configuration

KINDS = ("WordPiece", "WordLevel")
CONTINUES = "##"
SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
ADVICE = "leave it out, or start from a pretrained text encoder"


def make_smaller(
    configuration: Configuration,
    model: FlavourPreTrainedModel,
    processor: FlavourProcessor,
    texts: Sequence[str],
) -> None:
    """Leave out word pieces and layers of a pretrained text encoder as `text_pieces` and `text_layers` say.

    Args:
        configuration: of the run.
        model: changed in place, with its config.
        processor: gets the smaller tokenizer.
        texts: those of the training rows, whose pieces are kept first.

    Raises:
        BadInputError: the model has no such encoder, or there are fewer pieces or layers than are to be kept.
    """
    arguments = configuration.model
    pieces, layers = arguments.text_pieces, arguments.text_layers
    if pieces is None and layers is None:
        return
    named = "text_pieces" if pieces is not None else "text_layers"
    if configuration.training.lora_rank:
        raise BadInputError(f"{named}: adapters go on a base as it is; leave out lora_rank, or train without {named}")
    fresh = arguments.model_name_or_path is None and (arguments.text_encoder is None or arguments.tokenizer is not None)
    encoder: Any = getattr(model, "text_encoder", None)
    if fresh or encoder is None or encoder.is_table:
        raise BadInputError(f"{named}: this model has no pretrained text encoder; {ADVICE}")
    said = []
    if pieces is not None:
        said.append(keep_pieces(model, processor, texts, pieces))
    if layers is not None:
        said.append(keep_layers(model, layers))
    if configuration.training.process_index == 0:
        echo(f"the text encoder keeps {' and '.join(said)}")


def keep_pieces(model: FlavourPreTrainedModel, processor: FlavourProcessor, texts: Sequence[str], number: int) -> str:
    """Keep so many entries of the vocabulary; return the line that says so."""
    tokenizer = processor.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = content["model"]["type"]
    if kind not in KINDS:
        raise BadInputError(f"text_pieces: the tokenizer is a {kind}, whose pieces are made of each other; {ADVICE}")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    order, needed = ranked_pieces(tokenizer.backend_tokenizer, vocabulary, texts)
    if not needed <= number <= len(vocabulary):
        raise BadInputError(
            f"text_pieces is {number}; the vocabulary has {len(vocabulary)} entries, of which {needed} are special "
            "tokens, letters and signs; give a number between these"
        )
    # In the order of the former numbers: as they say, so do the vectors lie.
    kept = sorted(order[:number], key=vocabulary.__getitem__)
    new = {piece: place for place, piece in enumerate(kept)}
    content["model"]["vocab"] = new
    renumber(content, new)
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        clean_up_tokenization_spaces=False,
        **tokenizer.special_tokens_map,
    )
    encoder: Any = model.text_encoder
    words, config = encoder.get_input_embeddings(), model.config
    smaller = nn.Embedding(number, words.embedding_dim, processor.tokenizer.pad_token_id)
    with torch.no_grad():
        smaller.weight = nn.Parameter(words.weight[[vocabulary[piece] for piece in kept]].clone())
    encoder.set_input_embeddings(smaller)
    former = {place: piece for piece, place in vocabulary.items()}
    for part in (encoder.model.config, config.text_config, config):
        for name in SPECIAL_IDS:
            # Both configs of the encoder may be one object, in which ids are new already.
            if isinstance(getattr(part, name, None), int):
                given = getattr(tokenizer, name, None)
                piece = former.get(given if given is not None else getattr(part, name))
                setattr(part, name, new.get(piece) if piece is not None else None)
        if part is not config:
            part.vocab_size = number
    return f"{number:,} of {len(vocabulary):,} word pieces"


def ranked_pieces(tokenizer: Tokenizer, vocabulary: dict[str, int], texts: Iterable[str]) -> tuple[list[str], int]:
    """Return the pieces of a vocabulary, those to keep first, and how many of them are kept in any case.

    Special tokens, letters and signs come first, so that every word can be spelled, then the pieces of the texts, the
    frequent ones first, then the others by number: vocabularies are written in the order of frequency.
    """
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.content in vocabulary]
    letters = [f"{start}{sign}" for start in ("", CONTINUES) for sign in string.printable]
    base = list(dict.fromkeys([*special, *(sign for sign in letters if sign in vocabulary)]))
    counted = Counter(piece for encoding in tokenizer.encode_batch(list(texts)) for piece in encoding.tokens)
    # Places that a vocabulary leaves free for its users stand for no word.
    others = (piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if not piece.startswith("[unused"))
    met = (piece for piece, _ in counted.most_common() if piece in vocabulary)
    return list(dict.fromkeys([*base, *met, *others, *vocabulary])), len(base)


def renumber(content: dict[str, Any], new: dict[str, int]) -> None:
    """Write the new numbers of tokens wherever the description of a tokenizer names them."""
    for token in content["added_tokens"]:
        token["id"] = new.get(token["content"], token["id"])
    processor = content.get("post_processor") or {}
    for part in processor.get("processors", [processor]):
        for token in (part.get("special_tokens") or {}).values():
            token["ids"] = [new[name] for name in token["tokens"]]
        for name in ("sep", "cls"):
            if name in part:
                part[name] = [part[name][0], new[part[name][0]]]
    padding = content.get("padding")
    if padding:
        padding["pad_id"] = new[padding["pad_token"]]


def keep_layers(model: FlavourPreTrainedModel, number: int) -> str:
    """Keep so many layers of the text encoder; return the words that say so."""
    encoder: Any = model.text_encoder
    backbone, config = encoder.model, model.config
    whole: int = getattr(backbone.config, "num_hidden_layers", 0)
    places = [
        (parent, name)
        for parent in backbone.modules()
        for name, part in parent.named_children()
        if isinstance(part, nn.ModuleList) and len(part) == whole > 0
    ]
    if len(places) != 1:
        raise BadInputError(f"text_layers: {type(backbone).__name__} has no one list of layers; {ADVICE}")
    if not 1 <= number <= len(getattr(*places[0])):
        raise BadInputError(f"text_layers is {number}; the text encoder has {whole} layers, give at most as many")
    parent, name = places[0]
    kept = [place * whole // number for place in range(number)]
    setattr(parent, name, nn.ModuleList(getattr(parent, name)[place] for place in kept))
    for part in (backbone.config, config.text_config):
        part.num_hidden_layers = number
    return f"layers {', '.join(str(place + 1) for place in kept)} of {whole}"
