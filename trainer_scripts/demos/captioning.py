"""Steps of `make demo TASK=captioning`: train both tiny captioners, score them on held-out dishes, compare them."""

from pathlib import Path

from trainer_scripts import compare, score
from trainer_scripts.demos.all_cores import train_on_all_cores

WARM_UP = "ingredient_tagging_tiny_fine"
TRANSFORMER, MERGE = "captioner_resnet18_transformer_tiny_warm", "captioner_xception_merge_lstm_tiny"


def run(data_dir: Path, out: Path, epochs: float | None = None) -> None:
    """Train, score and compare the tiny captioners on a finished build; finished trainings are left as they are.

    Args:
        data_dir: what `flavour-sd build --out` was given.
        out: folder of the results: `warm-up/` the model whose image encoder both start from, `transformer/` and
            `merge/` the captioners, `scores/` their captions, scores and figures, `comparison/` both captioners and
            the baselines.
        epochs: of each training; None: the configuration's.
    """
    warm_up, transformer, merge = out / "warm-up", out / "transformer", out / "merge"
    common = ["--dataset", str(data_dir), *(["--num_train_epochs", str(epochs)] if epochs else [])]
    train_on_all_cores([WARM_UP, "--output_dir", str(warm_up), *common])
    train_on_all_cores([TRANSFORMER, "--output_dir", str(transformer), "--init_image_encoder", str(warm_up), *common])
    # The merge captioner starts from an image encoder that was already trained for captions.
    train_on_all_cores([MERGE, "--output_dir", str(merge), "--init_image_encoder", str(transformer), *common])
    scores = [out / "scores" / model.name for model in (transformer, merge)]
    for model, folder in zip((transformer, merge), scores, strict=True):
        score.main([str(model), str(data_dir), "--split", "test", "--out", str(folder)])
    compare.main([*map(str, scores), "--out", str(out / "comparison")])
    print(f"pictures with truth and caption: {scores[0] / 'contact_sheet.png'}")
