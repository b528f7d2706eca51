"""Reads the facts for a model card from the files in the folder of a finished run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from model_cards.errors import CardError

CONFIG = "config.json"
METRICS = "metrics.json"
CONFIGURATION = "configuration.yaml"
FORMER_CONFIGURATION = "recipe.yaml"  # its name in runs of earlier versions
COMPARISON = "comparison.json"
SPREAD = "seeds.json"
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
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
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
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
        "starts from": config.get("base"),
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
            scores = _scores(content.get(key) or {}, content.get("definitions") or {}, intervals)
            if scores and split:
                rows = content.get("rows") if key == "metrics" else (content.get("rows") or {}).get("selection")
                other = other_data(content, run)
                note = _note(split, run.get("selection_split"), rows, other)
                results.append({"split": split, "dataset": other, "note": note, "scores": scores})
    return results


def _note(split: str, selection: str | None, rows: int | None, other: str | None = None) -> str:
    which = f"{rows} rows" if rows else "Rows"
    if other is not None:
        return f"{which} of other data than the model was trained on."
    if split == "train":
        return f"{which} that the model was trained on: the figures show what it remembers, not what it can do."
    if split == selection:
        return f"{which} that chose the checkpoint, so the figures are a little too good."
    return f"{which} that took no part in training or in the choice of the checkpoint."


def _scores(
    values: Mapping[str, Any], definitions: Mapping[str, Any], intervals: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
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


def comparison_of(path: Path, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a `comparison.json` about one model: its scores on the split, and tables beside other models.

    Args:
        path: written by `compare.py`; {} is returned when there is none.
        name: of the model in the comparison.
        run: `metrics.json` of the model's run.
    """
    content = read_json(path)
    entries = content.get("entries", {})
    if name not in entries:
        return {}
    # Scores per class have a table of their own and would make this one too wide.
    names = [score for score in entries[name]["scores"] if not score.startswith("f1_")]
    rows = [
        [line, entry.get("modality") or "", *(_cell(entry["scores"].get(score)) for score in names)]
        for line, entry in entries.items()
    ]
    other = other_data(content, run)
    split = content["split"] + (f" of {other}" if other else "")
    where = f"{content.get('rows')} rows of {content.get('groups')} groups, split {split}"
    found = {"header": ["", "input", *names], "rows": rows, "title": "Beside other models"}
    note = f"{where}; brackets hold 95 % bootstrap intervals over groups. This model is the line `{name}`."
    tables = [{**found, "note": note}]
    tables += _details(content, name)
    tables += transfer_of(content.get("transfer") or {}, name)
    scores = _scores(entries[name]["scores"], content.get("definitions") or {})
    selection_split = content.get("selection_split")
    result = {
        "split": content["split"],
        "dataset": other,
        "scores": scores,
        "note": _note(content["split"], selection_split, content.get("rows"), other),
    }
    # Sentences about this model: its gain, the inputs it uses, and a baseline that is ahead of it.
    # The name may hold characters with a meaning in patterns, such as a dot.
    named = re.escape(name)
    own = re.compile(rf"(?:- )?((?:{named}(?:: | is )|!!! A BASELINE SCORES HIGHER THAN {named}: ).*)")
    verdicts = [match[1] for match in map(own.fullmatch, content.get("verdicts", [])) if match]
    return {"result": result, "tables": tables, "verdicts": verdicts}


def _details(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the tables of a comparison that are about one model alone."""
    tables = []
    ablation = content.get("ablations", {}).get(name, {})
    score = str(ablation.get("score") or content.get("main_score", "score"))
    if ablation.get("scores"):
        changes = [[change, _cell(value)] for change, value in ablation["scores"].items()]
        rows = ablation.get("rows") or content.get("rows")
        note = f"{rows} rows of the split with one input taken away or exchanged between dishes."
        tables.append(
            {"title": "Whether each input is used", "note": note, "header": ["input", score], "rows": changes}
        )
    if ablation.get("follows"):
        rows = [[f"the label of its {what}", _cell(value)] for what, value in ablation["follows"].items()]
        note = "The row's own text beside the picture of a dish with another label."
        tables.append({"title": "What it follows when its inputs disagree", "note": note,
                       "header": ["held against", score], "rows": rows})  # fmt: skip
    # Calibration and cost have the same form: facts of this model, one per line.
    for key, title, note in (
        ("calibration", "Calibration", "The temperature was fitted on the split that chose the checkpoint."),
        ("cost", "Cost", "From table row to scored answer, on the machine of the comparison."),
    ):
        found = content.get(key, {}).get(name)
        if found:
            rows = [[what, _cell(value)] for what, value in found.items()]
            tables.append({"title": title, "note": note, "header": ["", "value"], "rows": rows})
    for what, spread in content.get("seeds", {}).get(name, {}).items():
        rows = [[key, _cell(value)] for key, value in spread.items()]
        note = f"The configuration trained again with other seeds, {what} on {content['split']}."
        tables.append({"title": f"Spread of {what} over seeds", "note": note, "header": ["", what], "rows": rows})
    return tables


def transfer_of(transfer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the tables of one model on the second data set of a comparison, such as photographs after drawings."""
    model = transfer.get("models", {}).get(name)
    if not model:
        return []
    data = Path(str(transfer["dataset"])).name
    title = f"On other data: {data}"
    rows = [[line, _cell(model[line])] for line in ("here", "there")]
    difference = model.get("difference")
    if difference:
        cell = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        rows.append(["difference", cell])
    rows += [[f"there, {change}", _cell(values["value"])] for change, values in model.get("without", {}).items()]
    rows += [
        [f"{line}, there", _cell(entry["scores"].get(model["score"]))]
        for line, entry in transfer.get("entries", {}).items()
        if line != name
    ]
    note = (
        f"The same model on {transfer['rows']} rows in {transfer['groups']} groups of {data}, {transfer['split']}; "
        "nothing was chosen or fitted there. Here is the split above; brackets hold 95 % bootstrap intervals."
    )
    seen = transfer.get("titles_in_training")
    if seen is not None:
        note += f" {seen} of the rows have a title that is in the training rows."
    tables = [{"title": title, "note": note, "header": ["", model["score"]], "rows": rows}]
    if model.get("calibration"):
        rows = [[what, _cell(value)] for what, value in model["calibration"].items()]
        note = "With the temperature that was fitted on the split that chose the checkpoint."
        tables.append({"title": f"Calibration on {data}", "note": note, "header": ["", "value"], "rows": rows})
    if model.get("confusions"):
        rows = [
            [f"{each['truth']} taken for {each['answer']}", str(each["rows"]), _cell(each["share"])]
            for each in model["confusions"]
        ]
        header = ["", "rows", "share of that truth"]
        tables.append({"title": f"Most common confusions on {data}", "note": "", "header": header, "rows": rows})
    return tables


def seeds_of(folder: Path) -> list[dict[str, Any]]:
    """Return the spread over seeds of a run with several of them, on the split that chose its checkpoints."""
    content = read_json(folder / SPREAD)
    if not content:
        return []
    rows = [
        [name, *(_cell(one[key]) for key in ("mean", "std", "min", "max"))]
        for name, one in content["selection"].items()
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


def _cell(value: Any) -> str:
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
