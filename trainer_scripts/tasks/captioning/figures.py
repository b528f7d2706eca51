"""Figures of captions: a contact sheet with truth and caption, and where a captioner looks at each word."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner, FlavourForTransformerCaptioning
from trainer_scripts.tasks.captioning.answers import pixels_of
from trainer_scripts.tasks.captioning.samples import CaptionSamples

COLUMNS, ROWS = 4, 3
LINE = 34


def contact_sheet(samples: CaptionSamples, captions: Sequence[str], path: Path) -> None:
    """Draw pictures spread evenly over the table with the first true caption above and the generated one below."""
    count = min(COLUMNS * ROWS, len(captions))
    chosen = np.linspace(0, len(captions) - 1, count).astype(int)
    figure, axes = plt.subplots(-(-count // COLUMNS), COLUMNS, figsize=(3.2 * COLUMNS, 4.2 * -(-count // COLUMNS)))
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, row in zip(np.ravel(axes), chosen, strict=False):
        axis.imshow(samples.pictures.decode(int(row)).permute(1, 2, 0).numpy())
        axis.set_title(textwrap.fill(f"true: {samples.table.labels[row][0]}", LINE), fontsize=7, loc="left")
        axis.text(0, -0.04, textwrap.fill(captions[row], LINE), fontsize=7, va="top", transform=axis.transAxes)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


@torch.inference_mode()
def attention_per_word(model: FlavourForTransformerCaptioning, pixels: torch.Tensor) -> tuple[list[int], np.ndarray]:
    """Return the tokens of a picture's caption and where the last layer looked for each, mean over heads.

    Args:
        model: a captioner with cross-attention.
        pixels: `(1, 3, height, width)`.

    Returns:
        Token ids without the begin token, and weights `(tokens, rows, columns)` that sum to 1 over the places.
    """
    seen = model.get_encoder().model(pixels).last_hidden_state
    encoded = model.get_encoder()(pixels)
    sequence = model.generate(encoder_outputs=encoded.of())
    output = model(encoder_outputs=encoded, decoder_input_ids=sequence[:, :-1], output_attentions=True, use_cache=False)
    # The last layer is the closest to the word that is chosen.
    weights = output.cross_attentions[-1][0].float().mean(dim=0)  # (tokens, places)
    places = weights.shape[-1]
    # Transformers give a sequence of patches, convolutions a map.
    rows = seen.shape[-2] if seen.ndim == 4 else int(places**0.5)
    return sequence[0, 1:].tolist(), weights.unflatten(-1, (rows, places // rows)).cpu().numpy()


def word_maps(model: FlavourCaptioner, samples: CaptionSamples, path: Path) -> bool:
    """Draw for the first picture where the captioner looked at each word, and return whether it has cross-attention."""
    if not isinstance(model, FlavourForTransformerCaptioning):
        return False
    tokens, maps = attention_per_word(model, pixels_of(samples, [0], model))
    words = whole_words(samples.processor.tokenizer.convert_ids_to_tokens(tokens), maps)
    special = set(samples.processor.tokenizer.all_special_tokens)
    words = [(word, weights) for word, weights in words if word not in special]
    picture = samples.pictures.decode(0).permute(1, 2, 0).numpy()
    rows = -(-len(words) // 6)
    figure, axes = plt.subplots(rows, 6, figsize=(12, 2.3 * rows))
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, (word, weights) in zip(np.ravel(axes), words, strict=False):
        axis.imshow(picture)
        axis.imshow(
            weights,
            alpha=0.55,
            cmap="inferno",
            interpolation="bicubic",
            extent=(0, picture.shape[1], picture.shape[0], 0),
        )
        axis.set_title(word, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def whole_words(pieces: Sequence[str], maps: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return words with their maps; the pieces of a word are joined and their maps averaged.

    >>> [word for word, _ in whole_words(["cucum", "##ber", "rice"], np.zeros((3, 1, 1)))]
    ['cucumber', 'rice']
    """
    words: list[tuple[str, list[np.ndarray]]] = []
    for piece, weights in zip(pieces, maps, strict=True):
        # WordPiece marks the continuation of a word by two number signs.
        if piece.startswith("##") and words:
            words[-1] = (words[-1][0] + piece[2:], [*words[-1][1], weights])
        else:
            words.append((piece, [weights]))
    return [(word, np.mean(parts, axis=0)) for word, parts in words]
