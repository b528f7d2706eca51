"""A trained pipeline on disk: the folder of a pipeline, or LoRA weights that one loads."""

from pathlib import Path
from typing import Any

from diffusers.utils import convert_state_dict_to_diffusers, recurse_remove_peft_layers
from torch import nn

from dataset_builder.files import write_json
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.text_to_image.conditions import ENCODERS
from trainer_scripts.tasks.text_to_image.drawing import Writer
from trainer_scripts.tasks.text_to_image.model import TrainedDenoiser
from trainer_scripts.tasks.text_to_image.samples import prompt_source

ADAPTER = "adapter"  # folder of a run whose adapters were merged; they lie there alone too
CONFIG = "config.json"


class PipelineWriter(Writer):
    """Saves the pipeline of a run.

    Args:
        model: in training.
        configuration: of the run.
    """

    def __init__(self, model: TrainedDenoiser, configuration: Configuration):
        super().__init__(model.size)
        self._model = model
        self._given, self._training = configuration.model, configuration.training
        self.prompts = prompt_source(configuration)

    def save_pretrained(self, folder: Path) -> None:
        """Write the pipeline; while adapters are trained, or where they are not merged, the LoRA weights alone."""
        folder = Path(folder)
        if self._has_adapters():
            self._save_adapters(folder)
        else:
            self._model.conditions.pipeline.save_pretrained(folder, safe_serialization=True)
        write_json(folder / CONFIG, self._facts())

    def finish(self, folder: Path) -> None:
        """Write the result of a run: with adapters, these, and the merged pipeline where that is wanted."""
        if self._has_adapters() and self._training.lora_merge:
            (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
            if hasattr(self._model.conditions.pipeline, "save_lora_weights"):
                self._save_adapters(folder / ADAPTER)
            for part in (self._model.denoiser, *self._model.text_encoder):
                merge(part)
        self.save_pretrained(folder)

    def _facts(self) -> dict[str, Any]:
        """Return what the card tells of the pipeline."""
        conditions, given = self._model.conditions, self._given
        return {
            "architectures": [type(conditions.pipeline).__name__],
            "base": given.pipeline,
            "base_revision": given.model_revision,
            "lora": self._has_adapters(),
            "image_size": self._model.size,
            "prediction_type": conditions.schedule.config.prediction_type,
        }

    def _has_adapters(self) -> bool:
        return any(".lora_A." in name for name, _ in self._model.denoiser.named_parameters())

    def _save_adapters(self, folder: Path) -> None:
        conditions = self._model.conditions
        if not hasattr(conditions.pipeline, "save_lora_weights"):
            return  # a checkpoint to go on from alone
        parts = {conditions.part: self._model.denoiser}
        if self._model.trains_text:
            parts |= dict(zip(ENCODERS, self._model.text_encoder, strict=False))  # most pipelines have one of them
        layers = {f"{name}_lora_layers": adapters_of(part) for name, part in parts.items()}
        conditions.pipeline.save_lora_weights(folder, **layers, safe_serialization=True)


def adapters_of(part: nn.Module) -> dict[str, Any]:
    """Return the adapters of a part by the names that diffusers gives them."""
    from peft import get_peft_model_state_dict

    return convert_state_dict_to_diffusers(get_peft_model_state_dict(part))


def merge(part: nn.Module) -> None:
    """Merge the adapters of a part into its weights, and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in part.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    recurse_remove_peft_layers(part)
    for name in ("peft_config", "_hf_peft_config_loaded"):
        part.__dict__.pop(name, None)  # by which libraries would save adapters in place of the part
