"""Accuracy on photographs of models that learned from plates, from plates and photographs, and from photographs alone.

    flavour-sd build recipes.csv --pictures own --size 320 --out photographs
    python benchmarks/real_pictures.py PLATES photographs --out outputs/real_pictures

The backbones are EfficientNet-Lite0 and MiniLM with their pretrained weights, frozen, their features stored once
(`flavour_fusion_efficientnet_lite0_minilm`). Photographs are divided into folds by dish; a model is tested
on the fold that it did not see, so that every photograph is tested once by each of the three. A quarter of the other
photographs chooses the checkpoint of the models that learn from photographs; plates choose that of the first.
Intervals are percentiles over resampled dishes, those of differences over the same dishes for both.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder import columns
from dataset_builder.building.finished_build import read_build
from dataset_builder.errors import exit_on_bad_input

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = "flavour_fusion_efficientnet_lite0_minilm"
LEARNED_FROM = ("plates", "plates and photographs", "photographs")
RESAMPLES = 5000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plates", type=Path, metavar="PLATES", help="folder of a build of plates")
    parser.add_argument("photographs", type=Path, metavar="PHOTOGRAPHS", help="folder of a build with --pictures own")
    parser.add_argument("--out", type=Path, default=Path("outputs/real_pictures"), help="folder (%(default)s)")
    parser.add_argument("--folds", type=int, default=2, help="of the photographs (%(default)s)")
    parser.add_argument("--modality", choices=("fusion", "image"), default="fusion", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="at most so many (%(default)s)")
    given = parser.parse_args()
    if given.folds < 2:
        parser.error(f"--folds is {given.folds}; give at least 2")
    with exit_on_bad_input("real_pictures.py"):
        plates, photographs = rows_of(given.plates), whole(rows_of(given.photographs))
        answers = {kind: answer(given, kind, plates, photographs) for kind in LEARNED_FROM}
        print(table_of(answers, photographs))
    return 0


def rows_of(folder: Path) -> dict[str, pa.Table]:
    """Return the rows of a build by split."""
    shards = read_build(folder).shards
    return {split: pa.concat_tables([pq.read_table(path) for path in paths]) for split, paths in shards.items()}


def whole(splits: dict[str, pa.Table]) -> pa.Table:
    """Return the rows of all splits."""
    return pa.concat_tables(list(splits.values()))


def share_of(dish: str) -> float:
    """Return a number from 0 to 1 that a dish keeps."""
    return int(hashlib.sha256(dish.encode()).hexdigest()[:8], 16) / 2**32


def write(folder: Path, **splits: pa.Table) -> Path:
    """Write a data set."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(rows, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def answer(given: argparse.Namespace, kind: str, plates: dict[str, pa.Table], photographs: pa.Table) -> dict[str, int]:
    """Return what models that learned from one kind of pictures say of each photograph, by row id."""
    shares = np.array([share_of(dish) for dish in photographs[columns.DISH_ID].to_pylist()])
    said: dict[str, int] = {}
    for fold in range(given.folds):
        tested = np.floor(shares * given.folds) == fold
        # The last quarter of each fold chooses, where it is not tested.
        chooses = ~tested & (shares * given.folds % 1 >= 0.75)
        seen = photographs.filter(pa.array(~tested & ~chooses))
        data = {
            "plates": (plates["train"], plates["validation"]),
            "plates and photographs": (
                pa.concat_tables([plates["train"], seen]),
                photographs.filter(pa.array(chooses)),
            ),
            "photographs": (seen, photographs.filter(pa.array(chooses))),
        }[kind]
        name = kind.replace(" ", "_") + (f"_{fold}" if kind != "plates" else "")
        model = given.out / f"{given.modality}_{name}"
        if not (model / "metrics.json").is_file():
            # Training leaves out what is in the test rows too: a plate of a dish of which there is a photograph.
            test = photographs if kind == "plates" else photographs.filter(pa.array(tested))
            train(given, write(given.out / "data" / name, train=data[0], validation=data[1], test=test), model)
        rows = write(given.out / "data" / f"test_{fold}", test=photographs.filter(pa.array(tested)))
        scores = given.out / f"scores_{given.modality}_{name}_{fold}"
        run("score.py", str(model), str(rows), "--out", str(scores))
        for row in pq.read_table(scores / "predictions.parquet", columns=["id", "probabilities"]).to_pylist():
            said[row["id"]] = int(np.argmax(row["probabilities"]))
    return said


def train(given: argparse.Namespace, data: Path, model: Path) -> None:
    """Train one model; all share the stored features."""
    options = ["--dataset", str(data), "--output_dir", str(model), "--features_dir", str(given.out / "features")]
    options += ["--num_train_epochs", str(given.epochs), "--familiar_share", "none", "--disable_tqdm", "true"]
    # What a recipe and its drawing share are title and dish; the rows of photographs are held apart here.
    options += ["--shared_rows", "drop"]
    if given.modality == "image":
        options += ["--modality", "image", "--text_encoder", "none"]
    run("train.py", CONFIGURATION, *options)


def run(script: str, *arguments: str) -> None:
    """Run a script of the trainer; end with its message where it fails."""
    print(f"== {script} {' '.join(arguments)}", file=sys.stderr, flush=True)
    ended = subprocess.run([sys.executable, str(ROOT / "trainer_scripts" / script), *arguments], stdout=sys.stderr)
    if ended.returncode:
        sys.exit(ended.returncode)


def table_of(answers: dict[str, dict[str, int]], photographs: pa.Table) -> str:
    """Return the table: accuracy of each on the same photographs, and its difference to the first."""
    ids = photographs[columns.ID].to_pylist()
    truth = np.array(photographs[columns.FLAVOUR].to_pylist())
    _, dish = np.unique(photographs[columns.DISH_ID].to_pylist(), return_inverse=True)
    generator = np.random.default_rng(0)
    drawn = [
        generator.multinomial(dish.max() + 1, np.full(dish.max() + 1, 1 / (dish.max() + 1))) for _ in range(RESAMPLES)
    ]
    weights = np.array(drawn)[:, dish]  # (resamples, rows)

    def measured(values: np.ndarray) -> str:
        low, high = np.percentile(weights @ values / weights.sum(1), (2.5, 97.5))
        return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"

    right = {name: (np.array([of[one] for one in ids]) == truth).astype(float) for name, of in answers.items()}
    right["the most frequent label, always"] = (truth == np.bincount(truth).argmax()).astype(float)
    first = right[LEARNED_FROM[0]]
    lines = [f"| learned from | {len(ids)} photographs | beside plates alone |", "|---|---|---|"]
    for name, values in right.items():
        beside = "" if name == LEARNED_FROM[0] else measured(values - first)
        lines.append(f"| {name} | {measured(values).replace('+', '')} | {beside} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
