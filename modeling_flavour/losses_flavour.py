"""Losses that several models share: of class scores, of the class at each place of a picture, and of captions.

Captions become labels and decoder inputs here too: shifted by one word, without begin tokens and padding in front.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedConfig

from .encoders_flavour import grid_shape

IGNORED_LABEL = -100


def place_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of the class at each place, over four samples of the mask per place.

    Args:
        logits: `(batch, places, classes)`.
        mask: `(batch, height, width)` class ids; -100 where unknown. A batch without a known place gives 0.
    """
    rows, columns = grid_shape(logits.shape[1], (mask.shape[-2], mask.shape[-1]))
    fine = functional.interpolate(mask[:, None].float(), (2 * rows, 2 * columns), mode="nearest-exact").long()
    cells = fine.reshape(-1, rows, 2, columns, 2).transpose(2, 3).flatten(3).flatten(1, 2)  # (batch, places, 4)
    # The four samples of a place share one softmax.
    known = cells != IGNORED_LABEL
    said = logits.float().log_softmax(-1).gather(-1, cells.masked_fill(~known, 0))
    return -(said * known).sum() / known.sum().clamp(min=1)


def classification_loss(
    logits: Tensor, labels: Tensor, config: PreTrainedConfig, sample_weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy or binary cross-entropy with the config's class weights and label smoothing.

    Each sample's loss (for several labels: the mean over the labels) is multiplied by its weight, then the plain mean
    over the batch is taken. Dividing by the number of samples rather than by the sum of weights keeps the gradient of
    one batch equal to that of its accumulated parts.

    Args:
        logits: `(batch, num_labels)`.
        labels: `(batch,)` class ids, or `(batch, num_labels)`: shares of the classes that sum to 1 (soft labels), or
            with several labels per sample 0/1.
        config: Has `problem_type`, `label_smoothing`, `class_weights`.
        sample_weights: `(batch,)`.

    Raises:
        ValueError: `labels` have another shape.
    """
    logits = logits.float()
    num_labels = logits.shape[-1]  # those of the head, which may have been replaced by hand
    multi_label = config.problem_type == "multi_label_classification"
    if labels.shape != logits.shape and (multi_label or labels.shape != logits.shape[:1]):
        expected = f"{tuple(logits.shape)}" if multi_label else f"{tuple(logits.shape[:1])} or {tuple(logits.shape)}"
        raise ValueError(f"For {config.problem_type}, labels must have shape {expected}, got {tuple(labels.shape)}.")
    targets = labels if labels.ndim == 2 else functional.one_hot(labels, num_labels)
    targets = targets.to(logits.dtype)
    if config.label_smoothing:
        uniform = 0.5 if multi_label else 1 / num_labels
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing * uniform
    if multi_label:
        terms = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") / num_labels
    else:
        terms = -targets * logits.log_softmax(dim=-1)
    if config.class_weights is not None:
        terms = terms * terms.new_tensor(config.class_weights)
    losses = terms.sum(dim=-1)
    if sample_weights is not None:
        losses = losses * sample_weights.to(losses.dtype)
    return losses.mean()


def captioning_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float, num_items_in_batch: Tensor | int | None
) -> Tensor:
    """Cross-entropy over the words of a batch; labels of -100 (padding) do not count.

    Args:
        logits: `(batch, length, vocab_size)`.
        labels: `(batch, length)`, word `i` is the target of `logits[:, i]`.
        label_smoothing: Share of probability spread evenly over the vocabulary.
        num_items_in_batch: Words in all batches that make one step of the optimiser, where gradients are accumulated;
            `None` takes the mean over this batch.
    """
    # With accumulation, batches of different length are weighted by their words only if the sum is divided once.
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = functional.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def shift_right(labels: Tensor, start: int, padding: int) -> Tensor:
    """Return the decoder's input for `labels` `(batch, length)`: the start token, then all labels but the last.

    >>> shift_right(torch.tensor([[7, 8, 3, -100]]), start=2, padding=0)
    tensor([[2, 7, 8, 3]])
    """
    shifted = torch.cat([labels.new_full((labels.shape[0], 1), start), labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED_LABEL, padding)


def without_begin(ids: Tensor, begin: int, end: int, padding: int, first: int = 0) -> Tensor:
    """Return captions `(batch, length)` without a begin token at place `first`; the rest moves up, padding follows.

    Tokenizers put a begin token before a caption, which the decoder gets as its start and never has to say.

    >>> without_begin(torch.tensor([[2, 7, 8, 3], [7, 8, 3, -100]]), begin=2, end=3, padding=-100)
    tensor([[   7,    8,    3, -100],
            [   7,    8,    3, -100]])
    """
    if ids.shape[1] <= first:
        return ids
    begins = ids[:, first] == begin
    if begin == end and ids.shape[1] > first + 1:  # then the end token of an empty caption looks the same
        begins &= ids[:, first + 1] != padding
    moved = torch.cat([ids[:, :first], ids[:, first + 1 :], ids.new_full((len(ids), 1), padding)], dim=1)
    return torch.where(begins[:, None], moved, ids)


def to_the_front(labels: Tensor) -> Tensor:
    """Return captions `(batch, length)` from the first place on; the places in front that are not learned follow.

    >>> to_the_front(torch.tensor([[-100, 7, 8, 3], [7, 8, 3, -100]]))
    tensor([[   7,    8,    3, -100],
            [   7,    8,    3, -100]])
    """
    first = (labels != IGNORED_LABEL).long().argmax(1, keepdim=True)
    places = torch.arange(labels.shape[1], device=labels.device) + first
    return labels.gather(1, places % labels.shape[1])
