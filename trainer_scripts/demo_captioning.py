"""Steps of `make demo TASK=captioning`: train the tiny captioner, score it on held-out dishes, caption one plate."""

from pathlib import Path

from trainer_scripts import score, train

RECIPE = "captioner_resnet18_transformer_tiny"


def run(data_dir: Path, out: Path) -> None:
    """Train and score the tiny captioner on a finished build.

    Args:
        data_dir: what `flavour-sd build --out` was given.
        out: folder of the results: `captioner/` the model, `scores/` captions, scores and figures.
    """
    captioner, scores = out / "captioner", out / "scores"
    print(f"== training {RECIPE}")
    train.main([RECIPE, "--dataset", str(data_dir), "--output_dir", str(captioner)])
    print("== scoring on held-out dishes")
    score.main([str(captioner), str(data_dir), "--split", "test", "--out", str(scores)])
    print(f"== pictures with truth and caption: {scores / 'contact_sheet.png'}")
