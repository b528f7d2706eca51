"""What the pictures and texts of training were like, and which inputs are too far from that to be relied on."""

from typing import Any

import torch
from torch import Tensor, nn

from .carried_flavour import RELIANCE, STATE, Carried, Reliance
from .encoders_flavour import ImageEncoding, TextEncoding

# Directions that are described one by one; what lies outside of them is described together.
MOST_AXES = 64
ROWS_PER_AXIS = 8
SMALLEST, SMALLEST_SCALE = 1e-6, 1e-2
MARGIN = 1e-3
# Of features of length 1: by so much they differ between kernels, runtimes, and merged or separate adapters.
ROUNDING = 1e-6


class Familiarity(Carried):
    """Distance of features from those of the training rows, in units of what is usual there.

    Features are brought to length 1 and standardised; then their leading principal axes with their variances, and one
    variance for all other directions, give the squared Mahalanobis distance under probabilistic PCA (Tipping & Bishop
    1999; Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples"), each of the two
    shares divided by its number of directions.

    All of it lies in buffers, so that it is saved with the weights; one of which nothing is known has none.

    Args:
        size: length of the features.
        axes: number of principal axes; `None` where nothing is known of the part.
    """

    mean: Tensor
    scales: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor
    limit: Tensor

    def __init__(self, size: int, axes: int | None):
        super().__init__()
        self.size = size
        held = {} if axes is None else self.initial(size, axes)
        for name in self.initial(0, 0):
            self.register_buffer(name, held.get(name))

    @property
    def known(self) -> bool:
        """Whether anything is known of the part."""
        return self.axes is not None

    def held(self) -> dict[str, Tensor]:
        """Return the buffers; {} where nothing is known."""
        return {name: value for name, value in self._buffers.items() if value is not None}

    def hold(self, held: dict[str, Tensor]) -> None:
        """Take the buffers of another one, which may have another number of axes, or none.

        Raises:
            ValueError: They do not describe features of this length.
        """
        shapes = self.initial(self.size, len(held["axes"])) if "axes" in held else {}
        if {name: value.shape for name, value in held.items()} != {name: one.shape for name, one in shapes.items()}:
            raise ValueError(f"These are no buffers of a {type(self).__name__} of features of length {self.size}.")
        for name in self._buffers:
            setattr(self, name, held[name].detach().clone() if held else None)

    @staticmethod
    def initial(size: int, axes: int) -> dict[str, Tensor]:
        """Return the buffers of a part of which nothing is known: everything is familiar."""
        return {
            "mean": torch.zeros(size),
            "scales": torch.ones(size),
            "axes": torch.zeros(axes, size),
            "variances": torch.ones(axes),
            "rest": torch.ones(()),
            "limit": torch.full((), torch.inf),
        }

    def forward(self, features: Tensor) -> Tensor:
        """Return the distances `(batch,)` of features `(batch, size)`, fp32; about 2 for a training row."""
        shifted = (nn.functional.normalize(features.float(), dim=-1) - self.mean) / self.scales
        along = shifted @ self.axes.T
        inside = (along.square() / self.variances).mean(-1)
        beside = (shifted.square().sum(-1) - along.square().sum(-1)).clamp(min=0)
        return inside + beside / (self.rest * max(1, self.mean.shape[0] - self.axes.shape[0]))

    def familiar(self, features: Tensor) -> Tensor:
        """Return which features `(batch, size)` are as near as those of the validation rows mostly were, bool."""
        if self.limit.device != features.device:  # an adapter that was read on another device
            self.to(features.device)
        return self(features) <= self.limit

    @classmethod
    @torch.no_grad()
    def fitted(cls, features: Tensor, held_out: Tensor, share: float) -> "Familiarity":
        """Return the description of training rows, whose limit this share of other rows keeps.

        Args:
            features: of training rows `(rows, size)`, at least two.
            held_out: of validation rows `(rows, size)`.
            share: of the validation rows that shall be familiar.
        """
        features = nn.functional.normalize(features.double(), dim=-1)
        mean, scales = features.mean(0), features.std(0)
        # What never varies in training is compared on the scale of what varies least visibly.
        scales = scales.clamp(min=max(float(scales.max()) * SMALLEST_SCALE, SMALLEST))
        _, values, axes = torch.linalg.svd((features - mean) / scales, full_matrices=False)
        variances = values.square() / max(1, len(features) - 1)
        # Half of the directions at most, so that the others have a variance of their own.
        number = max(1, min(MOST_AXES, len(features) // ROWS_PER_AXIS, features.shape[1] // 2))
        others = max(1, features.shape[1] - number)
        # Directions that training rows hardly have count no more than rounding alone would move a row along them.
        rounding = float((ROUNDING / scales).square().mean())
        floor = max(float(variances[0]) * SMALLEST, rounding)
        made = cls(features.shape[1], number)
        made.mean.copy_(mean)
        made.scales.copy_(scales)
        made.axes.copy_(axes[:number])
        made.variances.copy_(variances[:number].clamp(min=floor))
        made.rest.copy_((variances[number:].sum() / others).clamp(min=floor))
        # A little farther, so that rows which are exactly as far are familiar to merged weights and other runtimes too.
        made.limit.copy_((1 + MARGIN) * torch.quantile(made(held_out.float()).double(), share))
        return made


PARTS = ("text", "image")
# Modules that an adapter carries in place of those of its base.
CARRIED = ("text_familiarity", "image_familiarity", RELIANCE)


class KnowsItsInputs:
    """Mixin of a classifier that may know what its training rows were like (`config.familiarity`).

    In evaluation mode a part that is not familiar counts as missing, where the model has learned to answer without it
    and another part remains. Without `config.familiarity`, as in models of earlier versions, every input is read.
    """

    config: Any
    text_encoder: Any
    image_encoder: Any
    training: bool

    def build_familiarity(self) -> None:
        """Make the modules, filled as the config says: from a checkpoint, by `learn_familiarity` or by an adapter."""
        known = self.config.familiarity or {}
        for part in PARTS:
            size = self.familiar_size(part)
            module = None if size is None else Familiarity(size, known.get(part))
            setattr(self, f"{part}_familiarity", module)
        self.reliance = Reliance()

    @property
    def abstain_below(self) -> float | None:
        """Probability of the best class below which the model would rather not answer; `None` where it has no limit."""
        return self.reliance.value("abstain_below", self.config.abstain_below)

    @property
    def answers_without_a_part(self) -> bool:
        """Whether the model, with its adapter, has learned to answer when its text or its picture is missing."""
        dropout = self.reliance.value("modality_dropout", self.config.modality_dropout)
        return bool(dropout) or self.config.fusion == "late"

    def carried_state(self) -> dict[str, Tensor]:
        """Return what an adapter keeps of this model beside weights, by name: that of the modules in `CARRIED`.

        They belong in its `modules_to_save`: what the base knows of its inputs does not hold for other features.
        """
        reliance = Reliance()
        reliance.fields = {"abstain_below": self.abstain_below, "modality_dropout": self.config.modality_dropout}
        modules = {name: getattr(self, name) for name in CARRIED[:-1]} | {CARRIED[-1]: reliance}
        return {f"{name}.{STATE}": one.get_extra_state() for name, one in modules.items() if one is not None}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save the model; its config states what a merged adapter brought along."""
        # Under an adapter peft's wrappers are in these places, and the model itself is not saved.
        if type(self.reliance) is Reliance:
            modules = {part: getattr(self, f"{part}_familiarity") for part in PARTS}
            known = {part: len(one.axes) for part, one in modules.items() if one is not None and one.known}
            self.config.familiarity = known or None
            for name, value in (self.reliance.fields or {}).items():
                setattr(self.config, name, value)
            self.reliance.fields = None
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]

    def familiar_size(self, part: str) -> int | None:
        """Return the length of `familiar_features` of a part; `None` for one that the model does not have."""
        encoder = getattr(self, f"{part}_encoder")
        if encoder is None:
            return None
        if part == "text":
            return encoder.output_size
        return 2 * encoder.token_size if encoder.reads_map else encoder.feature_size

    def familiar_features(self, text: TextEncoding | None, image: ImageEncoding | None) -> dict[str, Tensor]:
        """Return the features that distances are measured in, `(batch, size)` by part: what the encoders give.

        Of a picture that is its pooled vector, or where the model reads its places, their mean and standard deviation:
        the texture of another kind of picture shows in these.
        """
        found: dict[str, Tensor] = {}
        if text is not None:
            found["text"] = text.pooled
        if image is not None:
            places = image.tokens
            spread = (places - places.mean(1, keepdim=True)).square().mean(1).sqrt()
            read = torch.cat([places.mean(1), spread], dim=-1)
            pooled: Any = image.pooled
            found["image"] = read if self.image_encoder.reads_map else pooled
        return found

    def familiar_parts(self, text: TextEncoding | None, image: ImageEncoding | None) -> dict[str, Tensor]:
        """Return which samples are familiar, `(batch,)` bool for each part of which the model knows it."""
        modules: dict[str, Any] = {part: getattr(self, f"{part}_familiarity") for part in PARTS}
        known = {part: module for part, module in modules.items() if module is not None and module.known}
        if self.training or not known:
            return {}
        features = self.familiar_features(text, image)
        return {part: known[part].familiar(each) for part, each in features.items() if part in known}

    def relied_on(
        self, familiar: dict[str, Tensor], text_present: Tensor, image_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return which parts of complete samples are read: not those that are unfamiliar, unless both are."""
        if not familiar or not self.answers_without_a_part:
            return text_present, image_present
        text = text_present & familiar.get("text", text_present)
        image = image_present & familiar.get("image", image_present)
        # Something must be read; a sample with nothing familiar is read whole.
        left = text | image
        return text | (text_present & ~left), image | (image_present & ~left)

    @torch.inference_mode(False)  # buffers that were made in inference mode could not be loaded into any more
    @torch.no_grad()
    def learn_familiarity(self, train: dict[str, Tensor], held_out: dict[str, Tensor], share: float) -> None:
        """Describe the training rows; `share` of the held-out ones shall be familiar.

        Args:
            train: `familiar_features` of training rows, by part.
            held_out: those of validation rows.
            share: see `Familiarity.fitted`.
        """
        self.forget_familiarity()
        fitted = {part: Familiarity.fitted(train[part], held_out[part], share) for part in train}
        self.config.familiarity = {part: each.axes.shape[0] for part, each in fitted.items()}
        self.build_familiarity()
        for part, each in fitted.items():
            getattr(self, f"{part}_familiarity").hold(each.held())
            getattr(self, f"{part}_familiarity").to(train[part].device)

    def forget_familiarity(self) -> None:
        """Read every input again, as before further training."""
        self.config.familiarity = self.config.abstain_below = None
        self.build_familiarity()
