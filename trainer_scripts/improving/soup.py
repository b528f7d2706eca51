"""The mean of the weights of several seeds, kept where it scores higher on the rows that choose the checkpoint.

Model soups, Wortsman et al. 2022 ("Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time"), the greedy recipe: best seed first, the next one where the mean gains by it. All
seeds start from the same weights, because means of networks with other beginnings mean nothing.
"""

import copy
import dataclasses
import json
import shutil

from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer
from transformers.utils import SAFE_WEIGHTS_NAME

from dataset_builder.files import write_json
from dataset_builder.messages import echo
from model_cards.cards import write_model_card
from model_cards.runs import CONFIGURATION
from trainer_scripts.evaluation.predictions import METRICS, read_metrics
from trainer_scripts.features.frozen import features_once
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.training.callbacks import TrainingLines
from trainer_scripts.training.data import load_training_data
from trainer_scripts.training.descriptions import describe_results
from trainer_scripts.training.run import Prepare, complete, prepare_trainer
from trainer_scripts.training.vocabulary_record import VOCABULARY_SOURCE

SOUP = "soup"
RECORD = "soup.json"


def make_soup(repeated: list[Configuration], data: TrainingData | None, prepare: Prepare) -> None:
    """Write the mean of the seeds of a run into `soup/`, where it scores higher than the best of them.

    Args:
        repeated: configuration of each seed; all are finished.
        data: of the run; None reads them.
        prepare: as for training.
    """
    first = repeated[0]
    record, seeds = first.output_dir / RECORD, [one.training.seed for one in repeated]
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["tried"] == seeds:
        return
    if data is None:
        data = prepare(first, load_training_data(first))
    # Their adapters are merged: the seeds are ordinary models.
    training = copy.copy(first.training)
    training.lora_rank = 0
    plain = dataclasses.replace(first, training=training)
    trainer, processor, vocabulary = prepare_trainer(plain, data)
    trainer.remove_callback(TrainingLines)  # no step is taken
    name = str(trainer.args.metric_for_best_model)
    sign = 1 if trainer.args.greater_is_better else -1
    chosen_by = name.removeprefix("eval_")
    ranked = sorted(repeated, key=lambda one: -sign * read_metrics(one.output_dir)["selection"][chosen_by])
    with features_once(plain, trainer):
        best, kept, weights = greedy_mean(trainer, ranked, name, sign)
        single = sign * read_metrics(ranked[0].output_dir)["selection"][chosen_by]
        gained = len(kept) > 1 and best > single
        if gained:
            trainer.model.load_state_dict(weights, strict=False)
            # What it knows of its inputs has no mean; leaving unfamiliar ones out may change its answers.
            if complete(plain, data, trainer, processor):
                best = sign * trainer.evaluate()[name]
                gained = best > single
        if gained:
            results = describe_results(plain, data, trainer, 0.0, trainer.evaluate())
    mean = {"tried": seeds, "kept": [one.training.seed for one in kept] if gained else [], "chosen_by": chosen_by,
            "best_seed": sign * single, "mean": sign * best if gained else None}  # fmt: skip
    where = f"{chosen_by} on {data.selection.split}"
    if gained:
        folder = first.output_dir / SOUP
        folder.mkdir(exist_ok=True)
        trainer.model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / CONFIGURATION).write_text(first.as_yaml(), encoding="utf-8")
        if vocabulary is not None:
            (folder / VOCABULARY_SOURCE).write_text(json.dumps(vocabulary), encoding="utf-8")
        # Steps and epochs are those of a seed; this model took none itself.
        spent = read_metrics(first.output_dir)
        results |= {key: spent[key] for key in ("steps", "epochs", "history")}
        write_json(folder / METRICS, {**results, SOUP: mean})
        write_model_card(folder)
        named = ", ".join(str(one.training.seed) for one in kept)
        scores = f"{where} {sign * best:.4f}, that of the best seed {sign * single:.4f}"
        echo(f"{folder}: the mean of the seeds {named} is kept, {scores}")
    else:
        shutil.rmtree(first.output_dir / SOUP, ignore_errors=True)  # of fewer seeds
        echo(f"no mean of the seeds scores higher than the best one, {where} {sign * single:.4f}; none is kept")
    write_json(record, mean)


def greedy_mean(
    trainer: Trainer, ranked: list[Configuration], name: str, sign: int
) -> tuple[float, list[Configuration], dict[str, Tensor]]:
    """Return the score, times its sign, of the best mean, its seeds, and its weights.

    Args:
        trainer: evaluates; its model is changed.
        ranked: the seeds, the best first.
        name: of the score in evaluations.
        sign: -1 for a score of which less is better.
    """
    model = trainer.model
    kinds = {key: value.dtype for key, value in model.state_dict().items()}
    kept: list[Configuration] = []
    total: dict[str, Tensor] = {}
    best, weights = float("-inf"), {}
    for one in ranked:
        found = load_file(one.output_dir / SAFE_WEIGHTS_NAME)
        # Summed in double precision; whole numbers, such as counts of batches, have no mean.
        floats = {key: value.double() for key, value in found.items() if value.is_floating_point()}
        added = {key: total.get(key, 0) + value for key, value in floats.items()}
        mean = {key: (value / (len(kept) + 1)).to(kinds[key]) for key, value in added.items() if key in kinds}
        model.load_state_dict(mean, strict=False)
        model.tie_weights()
        score = sign * trainer.evaluate()[name]
        if score > best:
            best, total, weights, kept = score, added, mean, [*kept, one]
    return best, kept, weights
