"""Losses of masks by name: each is computed per picture over its known pixels, then averaged over the pictures.

Averaging over pictures rather than over the pixels of a batch keeps the gradient of one batch equal to that of its
accumulated parts, whatever share of each picture is unknown.
"""

from torch import Tensor
from torch.nn import functional

from .losses_flavour import IGNORED_LABEL

FOCAL_EXPONENT = 2.0


def segmentation_loss(
    logits: Tensor, labels: Tensor, kind: str, ignore_index: int, class_weights: list[float] | None = None
) -> Tensor:
    """Return the loss of a batch of masks.

    Args:
        logits: `(batch, classes, height, width)`.
        labels: `(batch, height, width)` class ids, `ignore_index` or -100 where unknown.
        kind: `cross_entropy`; `focal` (Lin et al. 2017, exponent 2); `dice`: 1 - mean soft Dice over the classes
            present in a picture; `lovasz`: the Lovasz extension of 1 - IoU over them (Berman et al. 2018).
        ignore_index: Value of unknown pixels; a picture without a known one adds 0.
        class_weights: Factor per class on each pixel's term of `cross_entropy` and `focal`.

    Raises:
        ValueError: `labels` have another shape.
    """
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"labels must have shape {(logits.shape[0], *logits.shape[2:])} (batch, height, width), "
            f"got {tuple(labels.shape)}."
        )
    logits = logits.float()
    # The value that PyTorch ignores, and with it many collators pad with, is unknown too.
    labels = labels.masked_fill(labels == IGNORED_LABEL, ignore_index)
    known = labels != ignore_index
    if kind in ("cross_entropy", "focal"):
        each = functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
        if kind == "focal":
            each = each * (1 - (-each).exp()) ** FOCAL_EXPONENT
        if class_weights is not None:
            each = each * each.new_tensor(class_weights)[labels.masked_fill(~known, 0)]
        return (each.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)).mean()
    truth = functional.one_hot(labels.masked_fill(~known, 0), logits.shape[1]).permute(0, 3, 1, 2)
    known = known[:, None]
    truth = (truth * known).to(logits.dtype)
    terms = dice_terms if kind == "dice" else lovasz_terms
    losses = terms(logits.softmax(1) * known, truth)  # (batch, classes)
    present = truth.flatten(2).any(2)
    return ((losses * present).sum(1) / present.sum(1).clamp(min=1)).mean()


def dice_terms(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - soft Dice per picture and class, from `(batch, classes, height, width)` without unknown pixels."""
    shared = (probabilities * truth).flatten(2).sum(2)
    both = (probabilities + truth).flatten(2).sum(2)
    return 1 - 2 * shared / both.clamp(min=1e-6)


def lovasz_terms(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return the Lovasz extension of the Jaccard loss per picture and class; algorithm 1 of Berman et al. 2018.

    Unknown pixels must be 0 in both arguments: their error of 0 adds nothing.
    """
    errors, order = (truth - probabilities).abs().flatten(2).sort(dim=2, descending=True)
    # Pixels in descending order of error: the loss is a weighted sum of errors, whose weights are the steps by which
    # the Jaccard loss grows when the pixels are misclassified one after another.
    hits = truth.flatten(2).gather(2, order)
    total = hits.sum(2, keepdim=True)
    union = total + (1 - hits).cumsum(2)
    loss = 1 - (total - hits.cumsum(2)) / union.clamp(min=1)
    steps = functional.pad(loss, (1, 0)).diff(dim=2)
    return (errors * steps).sum(2)
