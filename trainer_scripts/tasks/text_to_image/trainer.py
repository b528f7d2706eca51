"""Trainer of denoisers."""

from typing import Any

from trainer_scripts.tasks.common.trainer import FlavourTrainer


class DenoiserTrainer(FlavourTrainer):
    """Trainer whose checkpoints hold the weights that training changes, in a file that safetensors can write."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Convolutions lie channels last in memory, and files hold them as they are numbered.
        state = self.accelerator.unwrap_model(self.model).state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: value.contiguous() for name, value in state.items()})
