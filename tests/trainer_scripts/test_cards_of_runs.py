"""Cards of whatever a run can leave are published, and each block of each of them runs for a stranger.

The kinds of models themselves are in `tests/model_cards`, pipelines of diffusers in `tasks/text_to_image`.
"""

import csv
import re
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from dataset_builder.local_hub.store import card_errors
from dataset_builder.publishing.release import publish_model
from tests.dataset_builder.tiny_build import picture
from tests.model_cards.test_cards import ODD_LABELS
from tests.trainer_scripts.conftest import make_row
from tests.trainer_scripts.tasks.captioning.conftest import caption_data, tiny_arguments  # noqa: F401
from tests.trainer_scripts.tasks.segmentation.conftest import arguments, mask_data  # noqa: F401
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import train

ONE_EPOCH = ("--num_train_epochs", "1")
BASE = "base"
LORA = ("--lora_rank", "2", *ONE_EPOCH)


def odd_table(folder):
    """A plain table whose labels are hard to write into a block of code."""
    with (folder / "odd.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "title", "what", "split"])
        for split, number in {"train": 30, "validation": 15, "test": 15}.items():
            for index in range(number):
                row = make_row(split, index)
                (folder / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
                table.writerow([f"{row['id']}.png", row["title"], ODD_LABELS[index % 5], split])
    return folder / "odd.csv"


def runs_of(folder, small_dataset, caption_data, mask_data):  # noqa: F811
    """Train each kind of run for a moment; yield what is published: a folder, its name, and that of its base.

    Runs after `base` know it by its name on the Hub alone.
    """
    for kind in ("transformer", "merge"):
        for name, more in ((kind, ONE_EPOCH), (f"{kind}-lora", (*LORA, "--model_name_or_path", str(folder / kind)))):
            train.main(tiny_arguments(kind, caption_data, folder / name, *more))
        yield folder / kind, kind, None
        yield folder / f"{kind}-lora" / "adapter", f"{kind}-adapter", kind
        yield folder / f"{kind}-lora", f"{kind}-merged", None
    start = ("--init_segmenter", "none")
    train.main(arguments("multitask", mask_data, folder / "masks", *start, *ONE_EPOCH))
    yield folder / "masks", "masks", None
    more = (*start, *LORA, "--model_name_or_path", str(folder / "masks"))
    train.main(arguments("multitask", mask_data, folder / "masks-lora", *more))
    yield folder / "masks-lora" / "adapter", "masks-adapter", "masks"
    yield run(folder / "base", small_dataset, *ONE_EPOCH), "base", None
    start = ("--model_name_or_path", "org/base", "--model_revision", "v1.0.0")
    columns = ("--columns", '{"flavour": "what"}', "--group_column", "none")
    yield run(folder / 'odd "run" é', odd_table(folder), *start, *columns, *ONE_EPOCH), "odd.labels_x-1", BASE
    yield run(folder / "odd", folder / "odd.csv", *start, *columns, *LORA) / "adapter", "odd-adapter", BASE
    text = ("--modality", "text", "--learning_rate", "0.01", *ONE_EPOCH, "--metric_for_best_model", "loss")
    seeds = run(folder / "seeds", small_dataset, *text, "--seeds", "3", "--soup", "true")
    yield seeds, "seeds", None
    yield seeds / "soup", "soup", None
    yield run(folder / "student", small_dataset, *text, "--teacher", "org/base"), "student", None


@pytest.mark.slow
def test_every_block_of_the_card_of_every_run_works(
    small_dataset, caption_data, mask_data, tmp_path, connected_hub  # noqa: F811
):  # fmt: skip
    picture(3).save(tmp_path / "dish.jpg")
    script, names = [f"import os; os.chdir({str(tmp_path)!r})"], []
    for folder, name, base in runs_of(tmp_path, small_dataset, caption_data, mask_data):
        on = {} if base in (None, BASE) else {"base": f"org/{base}", "base_revision": "v1.0.0"}
        publish_model(folder, f"org/{name}", "1.0.0", **on)
        card = Path(hf_hub_download(f"org/{name}", "README.md", revision="v1.0.0")).read_text()
        assert card_errors(card) == []
        assert str(tmp_path) not in card, "a folder of this machine"
        assert HfApi().model_info(f"org/{name}").card_data.base_model == (base and f"org/{base}")
        blocks = re.findall("```python\n(.*?)```", card, re.DOTALL)
        assert len(blocks) == 2
        script += [f'print("begin", {name!r}, {number})\n{block}' for number, block in enumerate(blocks)]
        names.append(name)
    # Before they are published, cards name the folder, whatever it is called.
    local = (tmp_path / 'odd "run" é' / "README.md").read_text()
    blocks = re.findall("```python\n(.*?)```", local, re.DOTALL)
    script += [f'print("begin local", {number})\n{block}' for number, block in enumerate(blocks)]
    printed = connected_hub.run_python("\n".join(script))
    for name in (*names, "local"):
        for number in (0, 1):
            answer = printed.split(f"begin {name} {number}\n", 1)[1].split("begin")[0].strip()
            assert answer or (name == "masks" and number == 1), f"{name}, block {number}"
