"""The Trainer of segmenters: scores of the whole selection split, and a log of conflicts between the two tasks."""

from typing import Any

import torch
from transformers import PreTrainedModel

from dataset_builder.errors import BadInputError
from trainer_scripts.settings.training_arguments import TrainingArguments
from trainer_scripts.tasks.common.trainer import WholeTableTrainer
from trainer_scripts.tasks.segmentation.answers import answer
from trainer_scripts.tasks.segmentation.samples import MaskSamples

TWO_TASKS = {"segmentation", "ingredients"}


def gradient_conflict(masks: torch.Tensor, ingredients: torch.Tensor, encoder: torch.nn.Module) -> dict[str, float]:
    """Return the cosine between the gradients of two losses in the shared encoder, and the norm of each.

    Below zero the tasks are in conflict: a step for one is a step back for the other (Yu et al. 2020).

    Args:
        masks: loss of the masks, its graph alive.
        ingredients: loss of the ingredients.
        encoder: shared by both; frozen parameters do not count.
    """
    shared = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if not shared:
        return {}
    gradients = []
    for loss in (masks, ingredients):
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        # A parameter that one loss does not reach has gradient zero there.
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(shared, found, strict=True)]
        gradients.append(torch.cat([part.flatten().float() for part in parts]))
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    return {
        "gradient_cosine": float(cosine),
        "gradient_norm_segmentation": float(gradients[0].norm()),
        "gradient_norm_ingredients": float(gradients[1].norm()),
    }


class SegmentationTrainer(WholeTableTrainer):
    """Trainer whose checkpoint is chosen by scores of all pictures together, never by a mean of batches.

    With `gradient_log_steps` the log of a multi-task model shows how far its losses pull the encoder the same way.

    Args:
        **kwargs: as for `FlavourTrainer`; `eval_dataset` must be `MaskSamples`.
    """

    args: TrainingArguments

    def __init__(self, *, args: TrainingArguments, **kwargs: Any):
        super().__init__(args=args, **kwargs)
        self._logged_at = -1
        samples, config = self.eval_dataset, self.accelerator.unwrap_model(self.model).config
        if self.args.gradient_log_steps and (config.head == "none" or not config.ingredient_head):
            raise BadInputError(
                "gradient_log_steps compares the losses of two tasks, and this model has one; leave it out"
            )
        # Evaluation samples are made before the model, as whose classes they are now read.
        if isinstance(samples, MaskSamples) and config.class_map is not None:
            samples.read_as(config.class_map, config.num_labels)

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: object
    ) -> Any:
        """Return the loss; at every so many steps the gradients of the two tasks are compared before they are added."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        every, step = self.args.gradient_log_steps, self.state.global_step
        losses = outputs.get("losses") or {}
        # Of the accumulated batches of a step only the first is compared.
        if every and model.training and step % every == 0 and step != self._logged_at and set(losses) >= TWO_TASKS:
            self._logged_at = step
            encoder = self.accelerator.unwrap_model(model).image_encoder
            self.log(gradient_conflict(losses["segmentation"], losses["ingredients"], encoder))
        if self._teacher is not None and model.training:
            weight = self.accelerator.unwrap_model(model).config.ingredient_loss_weight
            taught = self._teacher.mask_loss(outputs, inputs["pixel_values"], weight)
            loss = (1 - self._teacher.share) * loss + self._teacher.share * taught
        return (loss, outputs) if return_outputs else loss

    def score_samples(self, model: PreTrainedModel, samples: MaskSamples) -> tuple[dict[str, float], float]:
        """Return the scores of masks and ingredients, and the loss."""
        answers = answer(model, samples, self.args.per_device_eval_batch_size, loss=True)
        names = [model.config.id2label[number] for number in sorted(model.config.id2label)]
        return answers.scores(names), answers.loss
