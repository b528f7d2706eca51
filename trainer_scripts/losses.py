"""Losses of the classification tasks, with every way a target can be softened or weighted."""

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class TargetOptions:
    """How targets are softened and rows weighted.

    Attributes:
        label_smoothing: share of each target that is spread evenly over all classes.
        target_share: weight of the soft target of a row, where there is one; the rest is on its label.
        class_weights: weight per class (mean 1 over the training rows), or None.
    """

    label_smoothing: float = 0.0
    target_share: float = 0.0
    class_weights: torch.Tensor | None = None


def _soft(hard: torch.Tensor, targets: torch.Tensor | None, options: TargetOptions, spread: float) -> torch.Tensor:
    soft = hard if targets is None else (1 - options.target_share) * hard + options.target_share * targets.to(hard)
    return (1 - options.label_smoothing) * soft + options.label_smoothing * spread


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    weights: torch.Tensor | None,
    options: TargetOptions,
) -> torch.Tensor:
    """Return the cross-entropy, the mean over rows of weight times row loss.

    Args:
        logits: `(batch, classes)`.
        labels: ids `(batch,)`.
        targets: soft targets `(batch, classes)` that sum to 1, or None.
        weights: sample weights `(batch,)`, or None for 1.
        options: softening and class weights.
    """
    classes = logits.shape[-1]
    hard = functional.one_hot(labels, classes).to(logits.dtype)
    soft = _soft(hard, targets, options, 1 / classes)
    if options.class_weights is not None:
        soft = soft * options.class_weights.to(logits)
    rows = -(soft * functional.log_softmax(logits, dim=-1)).sum(dim=-1)
    return (rows if weights is None else rows * weights.to(rows)).mean()


def multilabel_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    weights: torch.Tensor | None,
    options: TargetOptions,
) -> torch.Tensor:
    """Return the binary cross-entropy, the mean over labels and rows; arguments as in `classification_loss`."""
    soft = _soft(labels.to(logits.dtype), targets, options, 0.5)
    entries = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    if options.class_weights is not None:
        entries = entries * options.class_weights.to(logits)
    rows = entries.mean(dim=-1)
    return (rows if weights is None else rows * weights.to(rows)).mean()


def inverse_frequency(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return class weights in inverse proportion to frequency, with mean 1 over the rows.

    Args:
        labels: ids `(rows,)`, or 0/1 `(rows, labels)` (then the mean over present labels is 1).
        classes: number of classes.
    """
    counts = torch.bincount(labels, minlength=classes).double() if labels.ndim == 1 else labels.double().sum(dim=0)
    present = counts > 0
    weights = torch.where(present, 1 / counts.clamp(min=1), torch.zeros_like(counts))
    return (weights * counts.sum() / present.sum()).float()


def prior_logits(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the output bias that predicts the training split's shares: log-shares, or log-odds for many labels."""
    if labels.ndim == 1:
        counts = torch.bincount(labels, minlength=classes).double() + 1
        return (counts / counts.sum()).log().float()
    share = (labels.double().sum(dim=0) + 1) / (len(labels) + 2)
    return (share / (1 - share)).log().float()
