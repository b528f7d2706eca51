"""Sound folders of imported sets and of a model, one file of which a family damages."""

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from safetensors.torch import load_file

from dataset_builder.importers import IMPORTERS
from dataset_builder.importers.foodseg103 import read_categories
from modeling_flavour.configuration_flavour import FlavourConfig
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.tasks.common.model_folder import check_files, load_processor, load_weights
from trainer_scripts.training.checkpoints import fault_of

Files = dict[str, bytes]


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


def picture(suffix: str = "jpg") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (200, 120, 40)).save(stream, Image.registered_extensions()[f".{suffix}"])
    return stream.getvalue()


def comp5329() -> Files:
    return {
        "train.csv": b'ImageID,Labels,Caption\n0.jpg,1 3,"A dish, with salt"\n1.jpg,2,Soup\n',
        "test.csv": b"ImageID,Caption\n2.jpg,A cake\n",
        **{f"data/{number}.jpg": picture() for number in range(3)},
    }


def flickr8k() -> Files:
    captions = "".join(f"{name}.jpg#{number}\tA dog {number} .\n" for name in "abc" for number in range(2))
    return {
        "Flickr8k.token.txt": captions.encode(),
        "Flickr_8k.trainImages.txt": b"a.jpg\n",
        "Flickr_8k.devImages.txt": b"b.jpg\n",
        "Flickr_8k.testImages.txt": b"c.jpg\n",
        **{f"Flicker8k_Dataset/{name}.jpg": picture() for name in "abc"},
    }


def coco() -> Files:
    files: Files = {}
    for part, name in (("train2017", "a.jpg"), ("val2017", "v.jpg")):
        images = [{"id": 1, "file_name": name}]
        captions = {"images": images, "annotations": [{"image_id": 1, "caption": "A dish."}]}
        instances = {
            "annotations": [{"image_id": 1, "category_id": 1}],
            "categories": [{"id": 1, "name": "dish"}],
        }
        files[f"annotations/captions_{part}.json"] = as_json(captions)
        files[f"annotations/instances_{part}.json"] = as_json(instances)
        files[f"images/{part}/{name}"] = picture()
    return files


def categories() -> Files:
    return {"category_id.txt": b"0\tbackground\n1\tcandy\n2\tegg tart\n"}


@cache
def model() -> Files:
    """Return the files of a small text model with its processor."""
    tokenizer = train_tokenizer(["lemon cake", "salty soup"], "words", 20, 8)
    config = FlavourConfig(
        word_vocab_size=len(tokenizer), word_embedding_size=4, head_dense_sizes=[4], num_labels=2, text_dense_sizes=[4]
    )
    with TemporaryDirectory() as folder:
        FlavourForClassification(config).save_pretrained(folder)
        FlavourProcessor(tokenizer=tokenizer).save_pretrained(folder)
        return {
            path.name: path.read_bytes()
            for path in Path(folder).iterdir()
            if path.suffix in (".json", ".safetensors", ".txt")
        }


@cache
def checkpoint() -> Files:
    """Return the files that going on from a checkpoint needs."""
    files: Files = {"trainer_state.json": as_json({"global_step": 4, "epoch": 1.0, "log_history": []})}
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        stream = io.BytesIO()
        torch.save({"state": {"step": 4, "moments": torch.arange(8.0)}}, stream)
        files[name] = stream.getvalue()
    files["model.safetensors"] = model()["model.safetensors"]
    return files


def write(files: Files, folder: Path, except_for: str) -> None:
    """Write the files of a layout but the damaged one."""
    for name, content in files.items():
        if name != except_for:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def importing(system: str, files: Files, damaged: str) -> Callable[[Path], object]:
    """Return a reader of an imported set."""

    def read(folder: Path) -> object:
        write(files, folder, damaged)
        return IMPORTERS[system](str(folder))

    return read


def parsing(parse: Callable[[list[str]], object]) -> Callable[[Path], object]:
    """Return a reader of a command line, one word a line; a refusal ends with status 2."""

    def read(folder: Path) -> object:
        text = (folder / "words.txt").read_bytes().decode("utf-8", "surrogateescape")
        try:
            # No word of a command line holds a zero byte, and help is no refusal.
            return parse([word for word in text.replace("\0", "").split("\n") if word not in ("-h", "--help")])
        except SystemExit as error:
            if error.code != 2:
                raise RuntimeError(f"status {error.code}") from error
            return error

    return read


def reading_categories(folder: Path) -> object:
    return read_categories(folder / "category_id.txt")


def going_on(damaged: str) -> Callable[[Path], object]:
    """Return a reader of checkpoints: one that is called sound must be read by torch and safetensors."""

    def read(folder: Path) -> object:
        write(checkpoint(), folder, damaged)
        fault = fault_of(folder)
        if fault is None:
            for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
                torch.load(folder / name, weights_only=True)
            load_file(folder / "model.safetensors")
        return fault or "sound"

    return read


def loading(damaged: str) -> Callable[[Path], object]:
    """Return a reader of a model with its processor."""

    def read(folder: Path) -> object:
        write(model(), folder, damaged)
        check_files(folder)
        return load_processor(folder), load_weights(FlavourForClassification, folder)

    return read
