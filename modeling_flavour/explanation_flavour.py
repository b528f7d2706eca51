"""Explanations of one prediction: a heat map over the picture, a weight per word, and the share of each part."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .encoders_flavour import ImageEncoding, TextEncoding


@dataclass
class Explanation:
    """The reasons for one label of one sample.

    Attributes:
        label: Name of the explained label.
        probability: Its probability.
        heatmap: `(height, width)` of the network's picture, between 0 and 1, higher where evidence for the label lies;
            `None` without a picture.
        words: Each word with the drop of the label's log-probability when it is left out; `None` without a text.
        shares: Shapley value of each part in probability: what it adds, averaged over the orders of adding the parts.
            They sum to the probability minus that with both parts missing. Missing parts are the model's learned
            stand-ins, so the values mean something only if it was trained with modality dropout. `None` for a model or
            a sample with one part.
        picture: The picture as the network sees it, `None` without one.
    """

    label: str
    probability: float
    heatmap: np.ndarray | None = None
    words: list[tuple[str, float]] | None = None
    shares: dict[str, float] | None = None
    picture: Image.Image | None = None

    def figure(self):
        """Draw picture, heat map, words and shares as one matplotlib figure."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("Drawing an explanation needs matplotlib: pip install matplotlib") from error
        panels = sum(part is not None for part in (self.picture, self.words, self.shares))
        figure = Figure(figsize=(4 * panels, 4), layout="constrained")
        remaining = iter(np.atleast_1d(figure.subplots(1, panels)))
        if self.picture is not None:
            axes = next(remaining)
            axes.imshow(self.picture)
            axes.imshow(self.heatmap, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
            axes.set_axis_off()
            axes.set_title("where it looked")
        if self.words is not None:
            axes, words = next(remaining), self.words[::-1]
            axes.barh(range(len(words)), [weight for _, weight in words])
            axes.set_yticks(range(len(words)), [word for word, _ in words])
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_title("log-probability each word gives")
        if self.shares is not None:
            axes = next(remaining)
            axes.bar(list(self.shares), list(self.shares.values()))
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_title("probability each part gives")
        figure.suptitle(f"{self.label}: {self.probability:.0%}")
        return figure


@torch.inference_mode(False)
def explain(model: Any, processor: Any, image: Any = None, text: str | None = None, label: str | None = None):
    """Explain one prediction of a classifier; see [`Explanation`] for what is measured.

    Args:
        model: A [`FlavourForClassification`]; it is put into eval mode.
        processor: Its processor.
        image: A picture as the processor takes it, or `None`.
        text: A text, or `None`; a blank one is none.
        label: Name of the label to explain; `None` explains the most probable one.

    Raises:
        ValueError: There is no such label.
    """
    model.eval()
    text = text if text is None or text.strip() else None
    given = {"images": image, "text": text}
    inputs = processor(**{name: [part] for name, part in given.items() if part is not None})
    inputs = inputs.to(model.device)
    pixel_values = inputs.get("pixel_values")
    encoded_text: Any = None
    encoded_image: Any = None
    states = None
    with torch.enable_grad():
        if "input_ids" in inputs:
            encoded_text = model.text_encoder(inputs["input_ids"], inputs["attention_mask"])
        if pixel_values is not None:
            pixel_values = pixel_values.requires_grad_()  # so that a frozen backbone has gradients too
            encoded_image, states = encode_with_states(model, pixel_values)
        log_probabilities = log_scores(model, encoded_text, encoded_image)[0]
        if label is not None and label not in model.config.label2id:
            raise ValueError(f"There is no label {label!r}: choose one of {', '.join(model.config.label2id)}.")
        chosen = int(log_probabilities.argmax() if label is None else model.config.label2id[label])
        heatmap = None
        if states is not None:
            heatmap = place_evidence(
                model, log_probabilities[chosen], states, encoded_text, encoded_image, pixel_values
            )
    with torch.no_grad():
        return Explanation(
            label=model.config.id2label[chosen],
            probability=log_probabilities[chosen].exp().item(),
            heatmap=heatmap,
            words=None if text is None else word_weights(model, processor, text, encoded_image, chosen),
            shares=None if text is None or image is None else part_shares(model, encoded_text, encoded_image, chosen),
            picture=None if pixel_values is None else picture_of(processor, pixel_values[0]),
        )


def log_scores(model: Any, text: TextEncoding | None, image: ImageEncoding | None, **present: Tensor) -> Tensor:
    """Return log-probabilities `(batch, num_labels)` from encodings."""
    logits = model.classify(text, image, **present)[-1].float()
    multi_label = model.config.problem_type == "multi_label_classification"
    return functional.logsigmoid(logits) if multi_label else logits.log_softmax(dim=-1)


def repeat(encoding: Any, number: int) -> Any:
    """Return the encoding of one sample, repeated as a batch."""
    if encoding is None:
        return None
    return type(encoding)(
        *(value.expand(number, *value.shape[1:]) if isinstance(value, Tensor) else None for value in encoding)
    )


def encode_with_states(model: Any, pixel_values: Tensor) -> tuple[ImageEncoding, Tensor]:
    """Return the image encoding and the backbone's last states, from which pooled vector and places are computed."""
    caught: list[Tensor] = []
    hook = model.image_encoder.model.register_forward_hook(
        lambda module, arguments, output: caught.append(output.last_hidden_state)
    )
    try:
        encoding = model.image_encoder(pixel_values)
    finally:
        hook.remove()
    return encoding, caught[0]


def place_evidence(
    model: Any, score: Tensor, states: Tensor, text: TextEncoding | None, image: ImageEncoding, pixel_values: Tensor
) -> np.ndarray:
    """Return a heat map of the evidence for a score over the picture.

    HiResCAM (Draelos and Carin, 2020): states times their gradients, summed over channels, positive part; unlike
    Grad-CAM it does not blur the gradients over the picture first. A backbone whose pooled vector is one token gives no
    gradient to the other places; gradients times pixels, averaged over the backbone's grid, then take its place.
    """
    # A model that reads the pooled vector alone may not use the states at all.
    gradients, pixel_gradients = torch.autograd.grad(score, (states, pixel_values), allow_unused=True)
    rows, columns = image.feature_map.shape[-2:]
    evidence = None
    if gradients is not None:
        _, grid = model.image_encoder.places(states * gradients, pixel_values.shape[-2:])
        evidence = grid.sum(dim=1, keepdim=True)
    # No gradient reached the places: the pooled vector comes from one token.
    if evidence is None or not evidence.any():
        evidence = functional.adaptive_avg_pool2d(
            (pixel_values * pixel_gradients).sum(dim=1, keepdim=True), (rows, columns)
        )
    evidence = evidence.relu().float()
    evidence = functional.interpolate(evidence, pixel_values.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return (evidence / evidence.max().clamp_min(1e-12)).detach().cpu().numpy()


def word_weights(
    model: Any, processor: Any, text: str, image: ImageEncoding | None, label: int
) -> list[tuple[str, float]]:
    """Return each word with the drop of the label's log-probability when it is left out of the text."""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    # The first entry is the whole text, to which each shortened one is compared.
    texts = [text, *(text[:start] + text[end:] for start, end in places)]
    batch = processor.encode_texts(texts, padding=True)
    encoded = model.text_encoder(*(batch[name].to(model.device) for name in ("input_ids", "attention_mask")))
    scores = log_scores(model, encoded, repeat(image, len(texts)))[:, label]
    drops = (scores[0] - scores[1:]).tolist()
    return [(text[start:end], drop) for (start, end), drop in zip(places, drops, strict=True)]


def part_shares(model: Any, text: TextEncoding, image: ImageEncoding, label: int) -> dict[str, float]:
    """Return the Shapley values of text and picture for the label's probability."""
    # All four subsets of the two parts in one batch: neither, text, picture, both.
    text_present = torch.tensor([False, True, False, True], device=model.device)
    image_present = torch.tensor([False, False, True, True], device=model.device)
    scores = log_scores(
        model, repeat(text, 4), repeat(image, 4), text_present=text_present, image_present=image_present
    )
    neither, text_alone, image_alone, both = scores[:, label].exp().tolist()
    return {
        "text": ((text_alone - neither) + (both - image_alone)) / 2,
        "image": ((image_alone - neither) + (both - text_alone)) / 2,
    }


def picture_of(processor: Any, pixel_values: Tensor) -> Image.Image:
    """Return the picture of normalised values `(3, height, width)`."""
    mean, std = (
        torch.tensor(getattr(processor.image_processor, name), device=pixel_values.device)[:, None, None]
        for name in ("image_mean", "image_std")
    )
    values = ((pixel_values.detach().float() * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
