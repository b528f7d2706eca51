"""Whether pictures that a diffusion model drew show what they should, as models of this package read them.

    flavour-sd build --pipeline FOLDER --out drawn
    python benchmarks/drawn_pictures.py drawn PLATES --readers SEGMENTER CAPTIONER CLASSIFIER

Both data sets hold the same dishes: PLATES their plates by the simulator, `drawn` the pictures of a model. Each reader
answers three times for each held-out row: to the drawn picture, to the row's own plate (the ceiling) and to that of
another dish (the floor). `way` is (drawn - floor) / (ceiling - floor). Intervals are over resampled dishes, the same
for all three.

Distances are in the features of one fixed image encoder, which took no part in training (`--extractor`): the Fréchet
distance to the held-out plates beside that of other plates; the distance of each drawn picture to the nearest training
plate beside that of held-out plates (a model that repeats its training pictures is nearer); and with several pictures
of a prompt how far apart they are, beside pictures of different prompts.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from scipy.linalg import sqrtm
from transformers import AutoImageProcessor, AutoModel

from dataset_builder.columns import IMAGE
from dataset_builder.errors import BadInputError, exit_on_bad_input
from dataset_builder.files import write_json
from dataset_builder.progress import progress
from trainer_scripts.data.pictures import readable_picture
from trainer_scripts.data.splits import open_dataset, split_rows
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.evaluation.ablations import partners
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.intervals import CONFIDENCE, RESAMPLES
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.scores import CLASSES, INGREDIENTS, NAMES, Score, mean_of_rows, per_row
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.settings.arguments import PREFIX
from trainer_scripts.tasks.common.package_weights import package_folder
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.segmentation.classes import food_groups

DRAWN, CEILING, FLOOR = "drawn", "own plate", "plate of another dish"
SHOWN = {
    INGREDIENTS: ("ingredient_samples_f1", "ingredient_micro_f1"),
    NAMES: ("ingredient_f1", "group_f1"),
    CLASSES: ("accuracy",),
}
PAIRS_SHOWN = 12
SIDE = 128


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", metavar="DRAWN", help="folder or Hub id of the drawn data set")
    parser.add_argument("plates", metavar="PLATES", help="folder or Hub id of the same rows as plates")
    parser.add_argument("--readers", nargs="+", default=[], metavar="MODEL", help="models that read the pictures")
    parser.add_argument("--split", default="test", help="of the rows (%(default)s)")
    parser.add_argument("--several", metavar="DATASET", help="data set with several pictures per row of one prompt")
    parser.add_argument("--extractor", default=f"{PREFIX}efficientnet-lite0", help="fixed image encoder (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/drawn_pictures"), help="folder (%(default)s)")
    given = parser.parse_args()
    with exit_on_bad_input("drawn_pictures.py"):
        given.out.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"drawn": given.drawn, "plates": given.plates, "split": given.split}
        content["readers"] = {name: read(load_model(name), given) for name in given.readers}
        content["distances"] = distances(given)
        write_json(given.out / "drawn_pictures.json", content)
        print(table_of(content))
    return 0


def cells_of(dataset: str, split: str) -> dict[str, dict[str, Any]]:
    """Return the undecoded picture of each row by its id."""
    rows = split_rows(open_dataset(dataset), split, dataset).select_columns(["id", IMAGE])
    rows = rows.cast_column(IMAGE, ImageFeature(decode=False)).with_format("arrow")
    found: dict[str, dict[str, Any]] = {}
    for batch in rows.iter(256):
        found.update(zip(batch["id"].to_pylist(), batch[IMAGE].to_pylist(), strict=True))
    return found


def common(ids: Iterable[str], drawn: Mapping[str, Any], given: argparse.Namespace) -> list[str]:
    """Return the ids of rows that both data sets have."""
    found = [row_id for row_id in ids if row_id in drawn]
    if not found:
        raise BadInputError(f"{given.drawn} has no row of {given.plates}, {given.split}; draw the same dishes")
    return found


def with_pictures(table: Table, cells: Sequence[dict[str, Any]]) -> Table:
    """Return a table with other pictures, each at the size of the row's own."""
    sized = []
    for row_id, own, other in zip(table.ids, table.cells(), cells, strict=True):
        size = Image.open(io.BytesIO(decode_bytes(own, row_id))).size
        picture = readable_picture(decode_bytes(other, row_id), row_id)
        if picture.size != size:
            encoded = io.BytesIO()
            picture.resize(size, Image.Resampling.BICUBIC).save(encoded, "png")
            other = {"bytes": encoded.getvalue(), "path": None}
        sized.append(other)
    assert table.image_column is not None
    feature = ImageFeature(decode=False)
    pictures = Dataset.from_dict({table.image_column: sized}).cast_column(table.image_column, feature)
    rows = table.rows.remove_columns([table.image_column]).add_column(
        table.image_column, pictures.data.column(table.image_column).combine_chunks(), feature=feature
    )
    return replace(table, rows=rows, chosen_from=None)


def read(model: SavedModel, given: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader says of the three kinds of pictures, by score."""
    table, drawn = load_table(model, given.plates, given.split), cells_of(given.drawn, given.split)
    here = [row for row, row_id in enumerate(table.ids) if row_id in drawn]
    if not here:
        raise BadInputError(
            f"{given.drawn} has none of the rows of {given.plates}, {given.split}; draw the same dishes"
        )
    table = table.select(here, as_split=True)
    cells = list(table.cells())
    pictures = {
        DRAWN: [drawn[row_id] for row_id in table.ids],
        CEILING: cells,
        FLOOR: [cells[row] for row in partners(table.groups, 0)],
    }
    lines = {}
    for kind, chosen in pictures.items():
        answers = model.task.answers(model, with_pictures(table, chosen), 64, f"{model.name}: {kind}")
        lines[kind] = Line(kind, MODEL, model.modality, answers)
    found: dict[str, Any] = {"task": model.task.name, "rows": len(table), "groups": len(set(table.groups))}
    found["scores"] = {score.name: compared(score, lines) for score in shown_scores(model) if lines[DRAWN].has(score)}
    return found


def shown_scores(model: SavedModel) -> list[Score]:
    """Return the scores that are shown of a reader."""
    known = (*model.task.scores(model.names), *model.task.more_scores(model.names))
    scores = [score for score in known if score.name in SHOWN.get(score.part, ())]
    ingredients = [score for score in scores if score.part == INGREDIENTS]
    groups = food_groups(model.names) if ingredients else None
    if groups is not None:
        member = np.zeros((len(model.names) - 1, len(groups[0]) - 1))
        member[np.arange(len(member)), np.array(groups[1][1:]) - 1] = 1

        def of_groups(rows: Any) -> Any:
            def counted(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
                # A group is there, or said to be, where one of its ingredients is.
                said = Decision()(probabilities).astype(float)
                return rows((truth @ member > 0).astype(float), (said @ member > 0).astype(float))

            return counted

        scores += [
            replace(score, name=score.name.replace("ingredient", "group"), rows=of_groups(score.rows))
            for score in ingredients
        ]
    if ingredients:
        scores += [
            Score("named_seen", "share of the row's ingredients that are seen", _seen, mean_of_rows, part=INGREDIENTS),
            Score("all_seen", "share of rows of which all ingredients are", _all_seen, mean_of_rows, part=INGREDIENTS),
        ]
    return scores


def _seen(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    hits = ((truth > 0) & Decision()(probabilities)).sum(axis=1)
    return per_row(hits / np.maximum((truth > 0).sum(axis=1), 1))


def _all_seen(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return per_row(~((truth > 0) & ~Decision()(probabilities)).any(axis=1))


def compared(score: Score, lines: dict[str, Line]) -> dict[str, Any]:
    """Return a score of the three kinds of pictures, and how far drawn ones are on the way from floor to ceiling."""
    found: dict[str, Any] = {kind: vars(line.grouped.interval(score)) for kind, line in lines.items()}
    values = {kind: line.grouped.resampled(score, RESAMPLES, 0) for kind, line in lines.items()}
    value = {kind: found[kind]["value"] for kind in found}
    spans = values[CEILING] - values[FLOOR]
    if value[CEILING] <= value[FLOOR] or (spans <= 0).any():
        return found  # a reader that does not tell dishes apart measures no way
    low, high = np.quantile((values[DRAWN] - values[FLOOR]) / spans, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    way = (value[DRAWN] - value[FLOOR]) / (value[CEILING] - value[FLOOR])
    return found | {"way": {"value": float(way), "low": float(low), "high": float(high)}}


class Extractor:
    """Features of pictures by a fixed image encoder: the mean of its last map over the places.

    Args:
        name: `package:NAME`, a folder or a Hub id.
    """

    def __init__(self, name: str):
        folder = str(package_folder(name.removeprefix(PREFIX), "extractor")) if name.startswith(PREFIX) else name
        model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
        self._encoder = getattr(model, "image_encoder", model).eval()
        self._processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)

    @torch.inference_mode()
    def __call__(self, cells: Sequence[dict[str, Any]], name: str) -> np.ndarray:
        """Return features `(pictures, channels)` float64."""
        found = []
        for start in progress(range(0, len(cells), 64), f"features of {name}", "batches"):
            pictures = [
                readable_picture(decode_bytes(cell, str(row)), str(row)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for row, cell in enumerate(cells[start : start + 64])
            ]
            output: Any = self._encoder(**self._processor(pictures, return_tensors="pt"))
            hidden = output.feature_map if hasattr(output, "feature_map") else output.last_hidden_state
            found.append(hidden.flatten(2).mean(dim=2).double().numpy())
        return np.concatenate(found)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance of two sets of features, each taken as normally distributed (Heusel et al. 2017)."""
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    mixed = sqrtm(covariances[0] @ covariances[1])
    apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return float(apart + np.trace(covariances[0] + covariances[1] - 2 * np.real(mixed)))


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine distances of all pairs `(first, second)`."""
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    return 1 - unit[0] @ unit[1].T


def distances(given: argparse.Namespace) -> dict[str, Any]:
    """Return the distances between drawn pictures and plates."""
    extract = Extractor(given.extractor)
    drawn, held_out = cells_of(given.drawn, given.split), cells_of(given.plates, given.split)
    ids = common(held_out, drawn, given)
    train = list(cells_of(given.plates, "train").values())
    of_drawn = extract([drawn[each] for each in ids], "drawn pictures")
    of_held_out = extract([held_out[each] for each in ids], "held-out plates")
    of_train = extract(train, "training plates")
    nearest_drawn, nearest_held_out = apart(of_drawn, of_train), apart(of_held_out, of_train)
    others = np.random.default_rng(0).permutation(len(train))[: len(ids)]
    limit = np.quantile(nearest_held_out.min(axis=1), 0.05)
    sheet(given.out, [drawn[each] for each in ids], [held_out[each] for each in ids], train, nearest_drawn)
    found: dict[str, Any] = {
        "extractor": given.extractor,
        "rows": len(ids),
        "frechet": {
            DRAWN: frechet(of_drawn, of_held_out),
            # As many, since the distance shrinks with the number of pictures.
            "as many training plates": frechet(of_train[others], of_held_out),
        },
        "nearest training plate": {
            DRAWN: float(np.median(nearest_drawn.min(axis=1))),
            "held-out plates": float(np.median(nearest_held_out.min(axis=1))),
            # A twentieth of the held-out plates is nearer than this limit by its choice.
            "share of drawn nearer than all but a twentieth of the held-out": float(
                (nearest_drawn.min(axis=1) < limit).mean()
            ),
        },
    }
    if given.several:
        found["diversity"] = diversity(given, extract)
    return found


def diversity(given: argparse.Namespace, extract: Extractor) -> dict[str, float]:
    """Return the mean distance of pictures of one prompt, and that of pictures of different prompts."""
    rows = split_rows(open_dataset(given.several), given.split, given.several).select_columns([IMAGE, "title"])
    titles = rows["title"][:]
    cells = rows.cast_column(IMAGE, ImageFeature(decode=False))[IMAGE][:]
    features = extract(cells, "several pictures of a prompt")
    pairs, same = apart(features, features), np.equal.outer(titles, titles)
    several = same & ~np.eye(len(pairs), dtype=bool)
    if not several.any():
        raise BadInputError(f"{given.several} has no title with several pictures; build it with --images-per-dish")
    return {"same prompt": float(pairs[several].mean()), "others": float(pairs[~same].mean())}


def sheet(out: Path, drawn: Sequence[Any], plates: Sequence[Any], train: Sequence[Any], away: np.ndarray) -> None:
    """Write a sheet of pictures: drawn, the same dish as a plate, the nearest training plate."""
    rows = np.linspace(0, len(drawn) - 1, min(PAIRS_SHOWN, len(drawn))).astype(int)
    found = Image.new("RGB", (SIDE * len(rows), SIDE * 3))
    for column, row in enumerate(rows):
        for line, cell in enumerate((drawn[row], plates[row], train[int(away[row].argmin())])):
            picture = readable_picture(decode_bytes(cell, str(row)), str(row)).resize((SIDE, SIDE))
            found.paste(picture, (SIDE * column, SIDE * line))
    found.save(out / "sheet.png")


def table_of(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""

    def shown(entry: dict[str, float] | None) -> str:
        if entry is None:
            return "the reader does not tell dishes apart"
        return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"

    lines = ["| reader, score | drawn | plate of another dish | own plate | way |", "|---|---|---|---|---|"]
    for name, reader in content["readers"].items():
        for score, entry in reader["scores"].items():
            values = " | ".join(shown(entry.get(kind)) for kind in (DRAWN, FLOOR, CEILING, "way"))
            lines.append(f"| {Path(name).name}, {score} | {values} |")
    return "\n".join([*lines, "", json.dumps(content["distances"], indent=2, ensure_ascii=False)])


if __name__ == "__main__":
    sys.exit(main())
