"""Class frequencies of the training labels: shares for the output bias, weights against imbalance."""

import numpy as np


def class_prior(labels: np.ndarray, classes: int) -> list[float]:
    """Return the share of rows per class, with one row of each class added (Laplace) so that none is 0 or 1.

    Args:
        labels: ids `(rows,)`, or 0/1 `(rows, labels)`.
        classes: number of classes.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes) + 1
        return (counts / counts.sum()).tolist()
    # Each label is a class of its own against "absent", so two rows are added, one of either.
    return ((labels.sum(axis=0) + 1) / (len(labels) + 2)).tolist()


def class_weights(labels: np.ndarray, classes: int) -> list[float]:
    """Return class weights in inverse proportion to frequency, with mean 1 over the rows; 0 for absent classes."""
    counts = np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(axis=0)
    present = counts > 0
    return np.where(present, counts.sum() / np.maximum(counts, 1) / present.sum(), 0).tolist()


def sampling_weights(labels: np.ndarray) -> np.ndarray:
    """Return the sampling weight of each row: inverse frequency of its class, or of its rarest label."""
    if labels.ndim == 1:
        return 1 / np.bincount(labels)[labels]
    inverse = 1 / np.maximum(labels.sum(axis=0), 1)
    # A row without any label is drawn as rarely as the most frequent label.
    return np.where(labels.any(axis=1), (labels * inverse).max(axis=1), inverse.min())
