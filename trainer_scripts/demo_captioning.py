"""Steps of `make demo TASK=captioning`: train both tiny captioners, score them on held-out dishes, compare them."""

from pathlib import Path

from trainer_scripts import compare, score, train

TRANSFORMER, MERGE = "captioner_resnet18_transformer_tiny", "captioner_xception_merge_lstm_tiny"


def run(data_dir: Path, out: Path, epochs: float | None = None) -> None:
    """Train, score and compare the tiny captioners on a finished build; finished trainings are left as they are.

    Args:
        data_dir: what `flavour-sd build --out` was given.
        out: folder of the results: `transformer/` and `merge/` the models, `scores/` their captions, scores and
            figures, `comparison/` both beside the baselines.
        epochs: of each training; None: the recipe's.
    """
    transformer, merge = out / "transformer", out / "merge"
    common = ["--dataset", str(data_dir), *(["--num_train_epochs", str(epochs)] if epochs else [])]
    train.main([TRANSFORMER, "--output_dir", str(transformer), *common])
    # The merge captioner starts from eyes that have learned to see: it need not learn that again.
    train.main([MERGE, "--output_dir", str(merge), "--init_image_encoder", str(transformer), *common])
    scores = [out / "scores" / model.name for model in (transformer, merge)]
    for model, folder in zip((transformer, merge), scores, strict=True):
        score.main([str(model), str(data_dir), "--split", "test", "--out", str(folder)])
    compare.main([*map(str, scores), "--out", str(out / "comparison")])
    print(f"pictures with truth and caption: {scores[0] / 'contact_sheet.png'}")
