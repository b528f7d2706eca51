"""A teacher that looks at each batch: for masks and captions, whose probabilities would fill disks if they were kept.

The loss is a mean of the student's own and of its cross-entropy to the teacher's probabilities (Hinton et al. 2015), of
every pixel, ingredient or next word (Kim and Rush 2016).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from dataset_builder.errors import BadInputError
from modeling_flavour.losses_flavour import IGNORED_LABEL


def soft_cross_entropy(logits: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Return the cross-entropy to the softmax of a teacher's logits, without the dimension of the classes."""
    return -(teacher.float().softmax(dim) * logits.float().log_softmax(dim)).sum(dim)


class Teacher:
    """A finished model beside the one in training.

    Args:
        model: the teacher; its weights stay as they are.
        share: weight of its opinion in the loss.
        order: for each label of the student its number in the teacher; empty for captions.
        normal: means and standard deviations of the student's pictures, then those of the teacher's.
    """

    def __init__(
        self, model: nn.Module, share: float, order: Sequence[int], normal: Sequence[tuple[Sequence[float], ...]]
    ):
        self.model = model.eval().requires_grad_(False)
        self.share = share
        self._order = list(order)
        (mean, std), (its_mean, its_std) = [[torch.tensor(part).view(3, 1, 1) for part in each] for each in normal]
        # Pictures come as the student reads them, and are turned into those that the teacher reads.
        self._gain, self._shift = std / its_std, (mean - its_mean) / its_std

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor, **inputs: Any) -> Any:
        """Return the teacher's output for a batch of the student's pictures."""
        device = pixel_values.device
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        return self.model(pixel_values=pixel_values * self._gain.to(device) + self._shift.to(device), **inputs)

    def mask_loss(self, outputs: Any, pixel_values: Tensor, ingredient_weight: float) -> Tensor:
        """Return the cross-entropy of a segmenter's outputs to the teacher's: of pixels, of ingredients, or of both."""
        seen, losses = self(pixel_values), []
        if outputs.logits is not None:
            size = outputs.logits.shape[-2:]
            theirs = functional.interpolate(seen.logits[:, self._order].float(), size, mode="bilinear")
            losses.append(soft_cross_entropy(outputs.logits, theirs, 1).mean())
        if outputs.ingredient_logits is not None:
            # The background is no ingredient, so their numbers begin at the second class.
            theirs = seen.ingredient_logits[:, [number - 1 for number in self._order[1:]]].float().sigmoid()
            named = functional.binary_cross_entropy_with_logits(outputs.ingredient_logits.float(), theirs)
            losses.append(ingredient_weight * named)
        return torch.stack(losses).sum()

    def word_loss(self, logits: Tensor, inputs: dict[str, Any], words: Tensor | int | None) -> Tensor:
        """Return the cross-entropy of a captioner's next words to the teacher's; `words` as for its own loss."""
        labels = inputs["labels"]
        theirs = self(inputs["pixel_values"], labels=labels).logits
        real = labels.ne(IGNORED_LABEL)
        total = (soft_cross_entropy(logits, theirs, -1) * real).sum()
        return total / (real.sum() if words is None else words)


def check_heads(student: PreTrainedConfig, teacher: PreTrainedConfig, source: str) -> None:
    """Raise BadInputError unless a teacher of masks has every head that the student has."""
    for name, has in (("a mask head", lambda config: config.head != "none"),
                      ("an ingredient head", lambda config: config.ingredient_head)):  # fmt: skip
        if has(student) and not has(teacher):
            raise BadInputError(f"teacher: {source} lacks {name}, which this model has; give one that has it")
