"""The models that the app serves: each loaded once, with its temperature and the limit below which it is not sure."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.hub_files import fetch
from dataset_builder.recipes.hub_names import pinned
from modeling_flavour.captioning_pipeline_flavour import CaptioningPipeline
from modeling_flavour.segmentation_pipeline_flavour import SegmentationPipeline
from trainer_scripts.evaluation.intervals import scale_temperature
from trainer_scripts.scoring.onnx_model import OnnxModel
from trainer_scripts.scoring.saved_model import data_arguments, load_model
from trainer_scripts.tasks.common.model_folder import PATTERNS, model_folder, read_record
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.registry import task_of

COMPARISON = "comparison.json"
# A calibrated answer below one half is more often wrong than right; for models without a limit of their own.
SURE = 0.5


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one sample.

    Attributes:
        shares: calibrated probability of each label, `(labels,)` fp64.
        raw: probability of the best label before calibration, which `config.abstain_below` is compared with.
        familiar: by part that was given ("text", "image"), whether it is like the training rows; empty where the model
            does not know it.
        sure: whether the answer reaches the limit, and something of the sample is familiar.
    """

    shares: np.ndarray
    raw: float
    familiar: dict[str, bool]
    sure: bool

    @property
    def foreign(self) -> bool:
        """Whether nothing of the sample is familiar."""
        return bool(self.familiar) and not any(self.familiar.values())


@dataclass
class ServedModel:
    """One model of the app.

    Attributes:
        saved: the model with its processor and task.
        temperature: by which its logits are divided; 1 where no comparison has fitted one.
        calibrated: whether a comparison has fitted it.
        own_limit: probability before calibration below which it would rather not answer (`abstain_below` of its
            config); None in a model that never learned one, whose answers count from a calibrated `SURE` on.
        lock: held while it computes, so that two requests do not take twice the memory.
    """

    saved: SavedModel
    temperature: float = 1.0
    calibrated: bool = False
    own_limit: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """Name of the model, for the page."""
        return self.saved.name

    @property
    def reads(self) -> tuple[str, ...]:
        """Which of "image" and "text" it reads."""
        return ("image", "text") if self.saved.modality == "fusion" else (self.saved.modality,)

    def fitting(self, picture: Image.Image | None, text: str | None) -> dict[str, Any]:
        """Return the parts of a sample that the model reads, as its processor takes them.

        Raises:
            BadInputError: none of them is given.
        """
        given: dict[str, Any] = {}
        if "image" in self.reads and picture is not None:
            given["images"] = [picture]
        if "text" in self.reads and (text or "").strip():
            given["text"] = [text]
        if not given:
            wanted = {"image": "a photograph", "text": "a title"}
            raise BadInputError(f"{self.name} reads {' or '.join(wanted[one] for one in self.reads)}; give it one")
        return given

    @property
    def answers_without_a_part(self) -> bool:
        """Whether it leaves out a part of a sample that is not familiar to it."""
        return bool(getattr(self.saved.model.config, "answers_without_a_part", False))

    def probabilities(self, picture: Image.Image | None, text: str | None) -> np.ndarray:
        """Return the calibrated probability of each label, `(labels,)`."""
        return self.answer(picture, text).shares

    @torch.inference_mode()
    def answer(self, picture: Image.Image | None, text: str | None) -> Answer:
        """Return the calibrated shares of a sample, whether the model is sure, and whether it knows such inputs."""
        given = self.fitting(picture, text)
        with self.lock:
            inputs = self.saved.processor(**given).to(self.saved.model.device)
            output = self.saved.model(**inputs)
        found = self.saved.task.probabilities(output.logits.float()).cpu().numpy().astype(np.float64)
        shares = scale_temperature(found, self.temperature, self.saved.task.has_label_sets)[0]
        familiar = {}
        for part, key in (("text", "text"), ("image", "images")):
            known = output.get(f"{part}_familiar")
            if known is not None and key in given:
                familiar[part] = bool(known[0])
        raw = float(found[0].max())
        enough = shares.max() >= SURE if self.own_limit is None else raw >= self.own_limit
        answer = Answer(shares, raw, familiar, bool(enough))
        return replace(answer, sure=answer.sure and not answer.foreign)


def load_models(sources: Sequence[str], revision: str | None, trust_remote_code: bool) -> list[ServedModel]:
    """Load every model once.

    Args:
        sources: folders, Hub ids or `ID@REVISION`.
        revision: of Hub ids that name none; None for main.
        trust_remote_code: whether a model whose classes are not of this package may bring its own code.

    Raises:
        BadInputError: one cannot be loaded, or is an exported graph.
    """
    served = []
    for source in sources:
        place, own = pinned(source)
        if own is not None and revision is not None:
            raise BadInputError(f"{source} names a revision of its own; leave --revision {revision} out")
        saved = _load(place, own or revision, trust_remote_code)
        if isinstance(saved.model, OnnxModel):
            raise BadInputError(
                f"{source} is an exported graph, which has no explanations; give the model it was made of"
            )
        known = read_record(model_folder(place, own or revision or "main"), COMPARISON).get("calibration") or {}
        temperature = _temperature(known, saved.name, place)
        limit = getattr(saved.model.config, "abstain_below", None)
        own_limit = float(limit) if isinstance(limit, int | float) else None
        served.append(ServedModel(saved, temperature or 1.0, temperature is not None, own_limit))
    return served


def _load(place: str, revision: str | None, trust_remote_code: bool) -> SavedModel:
    try:
        return load_model(place, revision or "main")
    except BadInputError:
        if not trust_remote_code:
            raise
    if revision is None and not Path(place).exists():
        raise BadInputError(
            f"--trust_remote_code runs the code of {place}, which may be another one tomorrow; name the revision that "
            f"you have read: {place}@COMMIT, or --revision"
        )
    # Its own code, which the user trusts, in place of the classes of this package.
    folder = model_folder(place, revision)
    # The code lies beside the weights, and of a Hub only files without code are fetched otherwise.
    if not Path(place).exists():
        folder = fetch(place, revision, (*PATTERNS, "*.py"), what=f"cannot load a model from {place!r}")
    with outside(f"cannot load {place} by its own code"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=trust_remote_code).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return SavedModel(place, place, model, processor, task_of(config), data_arguments({}, place))


def _temperature(calibration: Mapping[str, Any], name: str, source: str) -> float | None:
    """Return the temperature that a comparison fitted for this model: under its own name, or the only one."""
    names = [one for one in (name, Path(source).name) if one in calibration]
    names = names or (list(calibration) if len(calibration) == 1 else [])
    value = calibration[names[0]].get("temperature") if names and isinstance(calibration[names[0]], dict) else None
    return float(value) if isinstance(value, int | float) and 0.01 < value < 100 else None


def named(by_name: Mapping[str, ServedModel], name: str) -> ServedModel:
    """Return the model that a page names; the name comes from a visitor."""
    if name not in by_name:
        raise BadInputError("there is no such model here; choose one of the list")
    return by_name[name]


def caption_pipeline(served: ServedModel) -> CaptioningPipeline:
    """Return the pipeline of a captioner that is loaded already."""
    return CaptioningPipeline(model=served.saved.model, processor=served.saved.processor)


def mask_pipeline(served: ServedModel) -> SegmentationPipeline:
    """Return the pipeline of a segmenter that is loaded already."""
    return SegmentationPipeline(model=served.saved.model, processor=served.saved.processor)
