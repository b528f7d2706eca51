"""What the configs of the family share about labels: another label set is taken, and a run's own settings stay home."""

from typing import Any, ClassVar


class LabelledConfig:
    """Mixin of configs, in front of `PreTrainedConfig`.

    A field of `run_fields` shapes the loss or the first weights of one training run. It acts on the model that is built
    with it, and is neither saved with the config nor read from a saved one: who trains a published model further gets
    the plain loss, whatever its run used.

    A change of `id2label`, or of `num_labels`, makes `label2id` follow, and empties the fields of `label_fields`, which
    describe the former labels one by one.
    """

    run_fields: ClassVar[tuple[str, ...]] = ()
    label_fields: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "id2label" or value is None:
            super().__setattr__(name, value)
            return
        # JSON has strings for keys.
        value = {int(number): label for number, label in value.items()}
        before = self.__dict__.get("id2label")
        super().__setattr__(name, value)
        if before and value != before:
            self.label2id = {label: number for number, label in value.items()}
            for field in self.label_fields:
                setattr(self, field, None)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a config of its saved form; settings of the run, which former versions saved, are left out."""
        kept = {name: value for name, value in config_dict.items() if name not in cls.run_fields}
        return super().from_dict(kept, **kwargs)  # type: ignore[misc]

    def to_dict(self) -> dict[str, Any]:
        """Return the saved form, without the settings of the run."""
        saved = super().to_dict()  # type: ignore[misc]
        return {name: value for name, value in saved.items() if name not in self.run_fields}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what the file of the config holds: what differs from the defaults of transformers, and all labels.

        Two labels without names are its default, but not that of this family.
        """
        saved = super().to_diff_dict()  # type: ignore[misc]
        names: dict[int, str] | None = getattr(self, "id2label", None)
        if names is not None:
            saved["id2label"], saved["label2id"] = names, {name: number for number, name in names.items()}
        return saved
