"""The pipeline `flavour-captioning`: pictures of any common kind to sentences."""

import re
from typing import Any

import torch
from transformers.utils import ModelOutput

from .pipelines_flavour import FEATURE_PIPELINE, ProcessorPipeline, pipeline_entry

CAPTIONING_TASK = "flavour-captioning"


def as_sentence(text: str) -> str:
    """Return a decoded caption as written text: no space before punctuation, a capital at the start.

    >>> as_sentence("three slices of cucumber , feta and rice in a bowl .")
    'Three slices of cucumber, feta and rice in a bowl.'
    """
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"(\w) ?(['’]) ?(s|t|re|ve|ll|d|m)\b", r"\1\2\3", text)
    text = re.sub(r"(\w) - (\w)", r"\1-\2", text)
    return text[:1].upper() + text[1:]


class CaptioningPipeline(ProcessorPipeline):
    """Pictures to captions.

    Takes one picture or a list of them (path, address, PIL image, array or tensor) and returns for each a list of
    `top_k` dictionaries: `generated_text`; `log_probability`, the sum of the log-probabilities of its own tokens, end
    token included; and `score`, the geometric mean of their probabilities. Other settings go to `generate`, one by one
    or together as `generate_kwargs`.

    Example:

    ```python
    captioner = pipeline("flavour-captioning", model="org/flavour-captioner", trust_remote_code=True)
    captioner("plate.jpg", top_k=3, num_beams=5, length_penalty=1.0)
    ```
    """

    _pipeline_calls_generate = True

    def _sanitize_parameters(
        self, top_k: int | None = None, generate_kwargs: dict[str, Any] | None = None, **settings: Any
    ):
        generate_kwargs = {**(generate_kwargs or {}), **settings}
        if top_k is not None:
            if top_k < 1:
                raise ValueError(f"top_k must be at least 1, got {top_k}.")
            generate_kwargs["num_return_sequences"] = top_k
            # Without sampling, `generate` returns at most as many sequences as it has beams.
            if not generate_kwargs.get("do_sample"):
                beams = generate_kwargs.get("num_beams") or self.model.generation_config.num_beams or 1
                generate_kwargs["num_beams"] = max(beams, top_k)
        # Words about the picture itself, which is prepared before the loop, do not exist: all is for `generate`.
        return {}, generate_kwargs, {}

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, torch.Tensor]:
        """Open and normalise one picture."""
        return dict(self.processor(images=self.picture_of(inputs)))

    def _forward(self, input_tensors: dict[str, torch.Tensor], **generate_kwargs: Any) -> ModelOutput:
        generated = self.model.generate(**input_tensors, **generate_kwargs)
        sequences = generated if isinstance(generated, torch.Tensor) else generated.sequences
        pictures = input_tensors["pixel_values"]
        sums, numbers = sequence_log_probabilities(self.model, pictures, sequences)
        # One row per picture again, so that the loader can take the batch apart.
        of_each = (len(pictures), -1)
        return ModelOutput(
            sequences=sequences.unflatten(0, of_each),
            log_probabilities=sums.unflatten(0, of_each),
            scores=(sums / numbers.clamp(min=1)).exp().unflatten(0, of_each),
        )

    def postprocess(self, model_outputs: ModelOutput, **parameters: Any) -> list[dict[str, Any]]:
        """Write the sentences."""
        texts = self.processor.tokenizer.batch_decode(model_outputs["sequences"][0], skip_special_tokens=True)
        figures = (model_outputs[name][0].tolist() for name in ("scores", "log_probabilities"))
        return [
            {"generated_text": as_sentence(text), "score": score, "log_probability": log_probability}
            for text, score, log_probability in zip(texts, *figures, strict=True)
        ]


@torch.no_grad()
def sequence_log_probabilities(
    model: Any, pixel_values: torch.Tensor, sequences: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the log-probabilities of each sequence's own tokens, end token included, and their number.

    What follows the first end token is padding, whatever its id: sequences are filled up to the longest beside them.

    Args:
        model: A captioner.
        pixel_values: `(batch, 3, height, width)`.
        sequences: `(batch * n, length)` with the start token first, as `generate` gives them.
    """
    encoded = model.get_encoder()(pixel_values.to(model.dtype))
    # Pictures are encoded once; the encoding is repeated for the sequences of each picture.
    repeats = len(sequences) // len(pixel_values)
    encoded = encoded.of(torch.arange(len(pixel_values), device=sequences.device).repeat_interleave(repeats))
    logits = model(encoder_outputs=encoded, decoder_input_ids=sequences[:, :-1], use_cache=False).logits
    targets = sequences[:, 1:]
    said = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    ended = model.generation_config.eos_token_id
    ended = model.config.eos_token_id if ended is None else ended
    ends = torch.isin(targets, torch.as_tensor(ended, device=targets.device)).int()
    own = (ends.cumsum(1) - ends == 0) & (targets != model.config.pad_token_id)
    return (said * own).sum(1), own.sum(1)


IMPLEMENTATION = "captioning_pipeline_flavour.CaptioningPipeline"
CAPTIONING_PIPELINE = {
    # The second is the Hub's name of this kind of model, whose own pipeline transformers no longer has.
    **dict.fromkeys(
        (CAPTIONING_TASK, "image-to-text"), pipeline_entry(IMPLEMENTATION, "AutoModelForImageTextToText", "image")
    ),
    **FEATURE_PIPELINE,
}
