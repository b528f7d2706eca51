"""Reads the facts for a model card from the files in the folder of a finished run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from model_cards.errors import CardError

# The reader in C is seven times as fast; a card is written with each checkpoint.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CONFIG = "config.json"
METRICS = "metrics.json"
CONFIGURATION = "configuration.yaml"
FORMER_CONFIGURATION = "recipe.yaml"  # its name in runs of earlier versions
COMPARISON = "comparison.json"
SPREAD = "seeds.json"
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FLAVOURS = ("sweet", "salty", "sour", "bitter", "umami")
CLASSIFICATION, MULTILABEL, CAPTIONING, SEGMENTATION = "classification", "multilabel", "captioning", "segmentation"
DRAWING = TEXT_TO_IMAGE, AUTOENCODER = "text_to_image", "autoencoder"
TEMPLATES = {
    CLASSIFICATION: "classification_card.md",
    MULTILABEL: "classification_card.md",
    CAPTIONING: "captioning_card.md",
    SEGMENTATION: "segmentation_card.md",
    TEXT_TO_IMAGE: "text_to_image_card.md",
    AUTOENCODER: "autoencoder_card.md",
}
# Settings that name folders of the machine of the run.
PLACES = ("output_dir", "overwrite", "dataset")
TRAINING = {
    "rows": "rows",
    "epochs": "epochs",
    "steps": "steps",
    "best_step": "step of the chosen checkpoint",
    "selection_metric": "checkpoint chosen by",
    "seed": "seed",
    "precision": "precision",
    "device": "device",
    "seconds": "seconds",
}


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} when there is none.

    Raises:
        CardError: it is no JSON mapping.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is not JSON ({error}); finish the run again") from error
    if not isinstance(content, dict):
        raise CardError(f"{path} holds no mapping; finish the run again")
    return content


def read_configuration(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a run saved, under the name of earlier versions too; None when there are none.

    Raises:
        CardError: the file is no YAML mapping.
    """
    for name in (CONFIGURATION, FORMER_CONFIGURATION):
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = yaml.load(path.read_text(encoding="utf-8"), Loader) or {}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise CardError(f"{path} is not YAML ({error}); write back what the run saved, or train anew") from error
        if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
            raise CardError(f"{path} holds no mapping of names; write back what the run saved, or train anew")
        return settings
    return None


def task_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the task named by the run, or else the task of its model class."""
    if metrics.get("task") in TEMPLATES:
        return str(metrics["task"])
    architecture = " ".join(config.get("architectures") or [])
    for word, task in (("Captioning", CAPTIONING), ("Segmentation", SEGMENTATION)):
        if word in architecture:
            return task
    return MULTILABEL if config.get("problem_type") == "multi_label_classification" else CLASSIFICATION


def hub_dataset(metrics: Mapping[str, Any]) -> str | None:
    """Return the Hub id of the data that the run names; None when it names a folder."""
    name = str(metrics.get("dataset") or "")
    return name if HUB_ID.fullmatch(name) and not Path(name).exists() else None


def dataset_name(metrics: Mapping[str, Any]) -> str | None:
    """Return the Hub id of the data, or the name of their folder."""
    return hub_dataset(metrics) or (Path(metrics["dataset"]).name if metrics.get("dataset") else None)


def other_data(content: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
    """Return the name of the data of the scores; None for the data of the run, under any folder or owner."""
    scored, trained = content.get("dataset"), run.get("dataset")
    # Folders move and repositories change owners, so only the last part of a name counts.
    same = not scored or not trained or Path(scored).name == Path(trained).name
    return None if same else dataset_name(content)


def manifest_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of the data of the run; {} where they are not in a folder with one."""
    return read_json(Path(metrics["dataset"], MANIFEST)) if metrics.get("dataset") else {}


def parts_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the model and its size, as far as they are stated."""
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    stated = {
        "class": ", ".join(config.get("architectures") or []),
        "text part": text.get("model_type") or ("word embeddings" if config.get("word_vocab_size") else None),
        "text pooling": config.get("text_pooling") if text or config.get("word_vocab_size") else None,
        "picture part": vision.get("architecture") or vision.get("model_type"),
        "fusion": config.get("fusion") if text and vision else None,
        "starts from": base_name(str(config["base"])) if config.get("base") else None,
        "pictures": f"{config['image_size']} x {config['image_size']} pixels" if "image_size" in config else None,
        "predicts": config.get("prediction_type"),
        "parameters": f"{metrics['parameters']:,}" if "parameters" in metrics else None,
        "trained parameters": f"{metrics['trainable_parameters']:,}" if "trainable_parameters" in metrics else None,
        "size": f"{metrics['megabytes']:.1f} MB" if "megabytes" in metrics else None,
        "adapters": adapters_of(metrics),
    }
    return {what: value for what, value in stated.items() if value}


def adapters_of(metrics: Mapping[str, Any]) -> str | None:
    """Return what the run states about its low-rank adapters; None for a run without them."""
    facts = metrics.get("adapters")
    if not facts:
        return None
    where = "merged into the weights" if facts["merged"] else "beside the base model"
    layers = f"{facts['layers']} layers of {base_name(facts['base'])}"
    return f"LoRA of rank {facts['rank']} (alpha {facts['alpha']}) on {layers}, {where}"


def base_name(base: str) -> str:
    """Return the Hub id of a base model, or the name of its folder."""
    return base if HUB_ID.fullmatch(base) and not Path(base).exists() else Path(base).name


def training_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about training that the run states."""
    facts: dict[str, Any] = {}
    teacher = metrics.get("teacher")
    if teacher:
        more = f", alone on {teacher['unlabelled_rows']} unlabelled rows" if teacher["unlabelled_rows"] else ""
        facts["teacher"] = f"{base_name(teacher['model'])}, weight {teacher['share']:g} on training rows{more}"
    for key, name in TRAINING.items():
        value = metrics.get(key)
        if value is None:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{what} {number}" for what, number in value.items() if number)
        facts[name] = f"{value:.4g}" if isinstance(value, float) else value
    return facts


def configuration_of(folder: Path) -> str | None:
    """Return the configuration of the run as YAML, without the paths of its machine."""
    settings = read_configuration(folder)
    if settings is None:
        return None
    kept = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in settings.items()
        if name not in PLACES and value is not None
    }
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100).strip()


def results_of(folder: Path) -> list[dict[str, Any]]:
    """Return the scores of the run: on the split that chose the checkpoint, and on every split scored since.

    Those of the run itself are in `metrics.json` under "selection"; score files (with "metrics" and "split") may lie
    there and in folders below. A value is a number, or a mapping with "value" and optionally "interval".
    """
    results = []
    run = read_json(folder / METRICS)
    for path in sorted(folder.glob("**/" + METRICS), key=lambda path: (len(path.parts), path)):
        content = read_json(path)
        # A folder in between with a `config.json` is another model, such as one of another seed or an export.
        between = path.relative_to(folder).parents[:-1]
        if any((folder / part / CONFIG).is_file() for part in between):
            continue
        for key, split in (("selection", content.get("selection_split")), ("metrics", content.get("split"))):
            if key == "selection" and path.parent != folder:
                continue
            intervals = content.get("intervals") or {} if key == "metrics" else {}
            scores = scores_of(content.get(key) or {}, content.get("definitions") or {}, intervals)
            if scores and split:
                rows = content.get("rows") if key == "metrics" else (content.get("rows") or {}).get("selection")
                other = other_data(content, run)
                note = note_of(split, run.get("selection_split"), rows, other)
                results.append({"split": split, "dataset": other, "note": note, "scores": scores})
    return results


def note_of(split: str, selection: str | None, rows: int | None, other: str | None = None) -> str:
    """Return the sentence that says what the rows of scores were to the model."""
    which = f"{rows} rows" if rows else "Rows"
    if other is not None:
        return f"{which} of other data than the model was trained on."
    if split == "train":
        return f"{which} that the model was trained on: the figures show what it remembers, not what it can do."
    if split == selection:
        return f"{which} that chose the checkpoint, so the figures are a little too good."
    return f"{which} that took no part in training or in the choice of the checkpoint."


def scores_of(
    values: Mapping[str, Any], definitions: Mapping[str, Any], intervals: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return scores as the templates of cards take them: name, value, interval and definition."""
    found = []
    for name, given in values.items():
        # A score is a plain number, or a mapping with value, interval and definition.
        entry = given if isinstance(given, Mapping) else {"value": given}
        defined = entry.get("definition") or definitions.get(name) or ""
        definition = defined.get("definition", "") if isinstance(defined, Mapping) else defined
        if isinstance(entry.get("value"), int | float):
            # Intervals were written in three forms: in the entry, as low and high, and in a table of their own.
            interval = entry.get("interval") or ([entry["low"], entry["high"]] if "low" in entry else None)
            interval = interval or (intervals or {}).get(name)
            found.append({"name": name, "value": float(entry["value"]), "interval": interval, "definition": definition})
    return found


# Tasks whose models bring the pipeline of their Hub name with them.
OWN_PIPELINES = (CAPTIONING, SEGMENTATION)


def pipeline_tag(task: str, has_text: bool, has_image: bool) -> str:
    """Return the Hub's name for what the model does."""
    if task == CAPTIONING:
        return "image-to-text"
    if task == SEGMENTATION:
        return "image-segmentation"
    if task == TEXT_TO_IMAGE:
        return "text-to-image"
    if task == AUTOENCODER:
        return "image-to-image"
    return "image-classification" if has_image or not has_text else "text-classification"


def kind_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what kind of model it is: its task, labels, inputs and pipelines, under the names of the templates.

    Which inputs the model has follows from the parts that its configuration names.
    """
    task = task_of(config, metrics)
    has_text = bool(config.get("text_config") or config.get("word_vocab_size"))
    has_image = bool(config.get("vision_config"))
    tag = pipeline_tag(task, has_text, has_image)
    return {
        "task": task,
        "tag": tag,
        "labels": list((config.get("id2label") or {}).values()),
        "has_text": has_text,
        "has_image": has_image,
        "pipeline": tag if task in OWN_PIPELINES else "flavour-classification",
        "has_masks": config.get("head") != "none",
        "inputs": " and ".join(["the title"] * has_text + ["a picture"] * has_image),
    }


def is_about_dishes(kind: Mapping[str, Any], metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Tell whether a model learned of dishes, as far as its run and its data say; the labels may be any.

    Args:
        kind: as `kind_of` gives it.
        metrics: of the run, which says whether its rows list ingredients.
        manifest: of its data, which only a build of dishes has.
    """
    tastes = bool(kind["labels"]) and set(kind["labels"]) <= set(FLAVOURS)
    return tastes or kind["task"] == SEGMENTATION or bool(metrics.get("dishes") or manifest.get("lexicon_sha256"))


def tags_of(values: Mapping[str, Any]) -> list[str]:
    """Return what the Hub finds the model by, beside its task."""
    tastes = values["dishes"] and bool(values["labels"]) and set(values["labels"]) <= set(FLAVOURS)
    both = values["task"] in (CAPTIONING, TEXT_TO_IMAGE) or (values["has_text"] and values["has_image"])
    return ["food", "recipes"] * values["dishes"] + ["taste"] * tastes + ["image-text"] * both


def base_of(adapter: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the model that adapters or a trained pipeline go on from, "" for none, and its revision."""
    base = adapter.get("base_model_name_or_path") or config.get("base") or ""
    return str(base), adapter.get("revision") or config.get("base_revision")


def started_from(settings: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the names of the models whose weights a run began with: a whole one, or the backbones that it has."""
    whole = settings.get("model_name_or_path")
    # A configuration may name both backbones and be run with one.
    parts = {"text_encoder": config.get("text_config"), "image_encoder": config.get("vision_config")}
    named = [whole] if whole else [settings.get(name) for name, part in parts.items() if part]
    return [str(name) for name in named if name]


def evaluation_results(
    results: list[dict[str, Any]], tag: str, dataset: str | None, revision: str | None
) -> list[EvalResult]:
    """Return the scores in the form of the Hub's model index, without those of unknown data.

    Args:
        results: as `results_of` gives them.
        tag: the Hub's name for what the model does.
        dataset: the data of the run, for results that name no other.
        revision: of the run's data.
    """
    return [
        EvalResult(
            task_type=tag,
            dataset_type=name,
            dataset_name=name.split("/")[-1],
            dataset_split=result["split"],
            dataset_revision=None if result["dataset"] else revision,
            metric_type=score["name"],
            metric_name=score["name"],
            metric_value=round(score["value"], 6),
        )
        for result in results
        if (name := result["dataset"] or dataset) is not None
        for score in result["scores"]
    ]


def seeds_of(folder: Path) -> list[dict[str, Any]]:
    """Return the spread over seeds of a run with several of them, on the split that chose its checkpoints."""
    content = read_json(folder / SPREAD)
    if not content:
        return []
    rows = [
        [name, *(cell(one[key]) for key in ("mean", "std", "min", "max"))] for name, one in content["selection"].items()
    ]
    seeds = ", ".join(map(str, content["seeds"]))
    note = f"The configuration trained with the seeds {seeds}; this model is the first of them."
    header = ["score", "mean", "standard deviation", "least", "largest"]
    return [
        {
            "title": "Spread over seeds on the split that chose the checkpoints",
            "note": note,
            "header": header,
            "rows": rows,
        }
    ]


def cell(value: Any) -> str:
    """Return a value, or a score with its interval, as a cell of a table; empty for what is no number."""
    if isinstance(value, Mapping) and "low" not in value:
        value = value.get("value")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def is_catalogue(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a build is made of the embedded catalogue, whose language and reference flavours are known."""
    settings = manifest.get("settings")
    return isinstance(settings, Mapping) and settings.get("recipes", "") is None
