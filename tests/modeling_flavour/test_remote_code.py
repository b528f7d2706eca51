"""Every model class pushed to a Hub, loaded by a stranger's process, pushed again from there and loaded once more.

One fresh process, in another folder and without our packages, does it for all classes; each test reads what it found.
"""

import json

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image

from dataset_builder.local_hub.server import LocalHub
from tests.conftest import connect

from .family import FAMILY
from .test_adapters import settings_for

# Freezing is said in the config, so it must travel too.
FROZEN = {"fusion-early": {"freeze_text": True}, "segmenter": {"freeze_image": True}}

STRANGER = """
import json, pickle, sys
import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline

folder, address, family = {folder!r}, {address!r}, {family!r}
torch.set_num_threads(1)
found = {{}}
adapters = {adapters!r}

def logits(model, name, answer):
    with torch.no_grad():
        return getattr(model.eval()(**torch.load(f"{{folder}}/{{name}}-batch.pt")), answer)

def logits_of_features(model, name, answer):
    batch = torch.load(f"{{folder}}/{{name}}-batch.pt")
    with torch.no_grad():
        if "pixel_values" in batch:
            batch["image_features"] = model.encode_image(batch.pop("pixel_values"))
        if "input_ids" in batch:
            batch["text_features"] = model.encode_text(batch.pop("input_ids"), batch["attention_mask"])
        return getattr(model(**batch), answer)

for name, (auto_classes, answer) in family.items():
    expected = torch.load(f"{{folder}}/{{name}}-answer.pt")
    facts = found[name] = {{"classes": [], "same": [], "features": [], "trainable": []}}
    repo = f"org/{{name}}"
    for source in (repo, repo + "-again"):
        assert AutoConfig.from_pretrained(source, trust_remote_code=True).to_dict()["auto_map"]
        for auto_class in auto_classes if source == repo else auto_classes[:1]:
            model = getattr(transformers, auto_class).from_pretrained(source, trust_remote_code=True)
            facts["classes"].append(type(model).__module__.split(".")[0] + "/" + type(model).__name__)
            facts["same"].append(torch.allclose(logits(model, name, answer), expected, rtol=1e-3, atol=1e-4))
            facts["features"].append(torch.equal(logits_of_features(model, name, answer), logits(model, name, answer)))
            facts["trainable"].append(sum(value.requires_grad for value in model.parameters()))
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
        facts["processor"] = type(processor).__module__.split(".")[0] + "/" + type(processor).__name__
        if source == repo:
            model.push_to_hub(repo + "-again")
            processor.push_to_hub(repo + "-again")
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **adapters[name])).eval()
    changed = logits(adapted, name, answer)
    merged = logits(adapted.merge_and_unload(), name, answer)
    facts["adapted"] = not torch.allclose(changed, expected, atol=1e-4)
    facts["merged"] = torch.allclose(merged, changed, rtol=1e-3, atol=1e-4)

# Two kinds of captioner in folders of one name share their code, and Auto classes remember one class for it.
found["captioners"] = []
for place in ("one", "two"):
    model = AutoModelForImageTextToText.from_pretrained(f"{{folder}}/{{place}}/captioner", trust_remote_code=True)
    found["captioners"].append([type(model).__name__, type(pickle.loads(pickle.dumps(model))).__name__])

picture = Image.open(f"{{folder}}/plate.png")
kinds = {{"path": f"{{folder}}/plate.png", "address": address, "picture": picture, "array": np.asarray(picture)}}

def plain(answer):
    return [{{name: value for name, value in entry.items() if name != "mask"}} for entry in answer]

pipes = found["pipelines"] = {{}}
for task, name, settings in (
    ("flavour-classification", "fusion-early", {{"top_k": 2}}),
    ("flavour-captioning", "captioner-transformer", {{"top_k": 2, "max_new_tokens": 6}}),
    ("flavour-captioning", "captioner-merge", {{"top_k": 2, "max_new_tokens": 6}}),
    ("flavour-segmentation", "segmenter-multitask", {{"top_k": 2}}),
    ("flavour-classification", "segmenter-multitask", {{"top_k": 2}}),
    ("flavour-classification", "ingredients", {{"top_k": 2}}),
    ("image-classification", "image", {{"top_k": 2}}),
):
    pipe = pipeline(task, model=f"org/{{name}}-again", trust_remote_code=True)
    given = {{kind: {{"image": value, "text": "greek salad"}} if name == "fusion-early" else value
             for kind, value in kinds.items() if task != "image-classification" or kind != "array"}}
    answers = pipes[f"{{task}} {{name}}"] = {{kind: plain(pipe(value, **settings)) for kind, value in given.items()}}
    answers["batch"] = [plain(each) for each in pipe(list(given.values()), batch_size=2, **settings)]
pipe = pipeline("text-classification", model="org/text-again", trust_remote_code=True)
alone, batch = pipe("greek salad", top_k=2), pipe(["greek salad"] * 3, top_k=2, batch_size=2)
pipes["text-classification text"] = {{"text": alone, "batch": batch}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What a stranger's process found, and the names of the files in each repository."""
    folder = tmp_path_factory.mktemp("published")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(folder / "plate.png")
    for place, name in (("one", "captioner-transformer"), ("two", "captioner-merge")):
        FAMILY[name].build().save_pretrained(folder / place / "captioner")
    with LocalHub(folder / "hub", tokens={"hf_writer": "org"}) as hub, pytest.MonkeyPatch.context() as patch:
        connect(hub, patch, folder / "cache")
        for name, member in FAMILY.items():
            model, batch = member.build(**FROZEN.get(name, {})).eval(), member.batch(3)
            model.push_to_hub(f"org/{name}")
            member.processor().push_to_hub(f"org/{name}")
            torch.save(batch, folder / f"{name}-batch.pt")
            with torch.no_grad():
                torch.save(getattr(model(**batch), member.answer), folder / f"{name}-answer.pt")
        api = HfApi()
        api.create_repo("org/pictures", repo_type="dataset")
        api.upload_file(
            path_or_fileobj=folder / "plate.png",
            path_in_repo="plate.png",
            repo_id="org/pictures",
            repo_type="dataset",
        )
        script = STRANGER.format(
            folder=str(folder),
            address=f"{hub.url}/datasets/org/pictures/resolve/main/plate.png",
            adapters={name: settings_for(name, member.build()) for name, member in FAMILY.items()},
            family={name: (member.auto_classes, member.answer) for name, member in FAMILY.items()},
        )
        found = json.loads(hub.run_python(script, token="hf_writer").splitlines()[-1])
        names = [f"org/{name}{suffix}" for name in FAMILY for suffix in ("", "-again")]
        found["files"] = {name: sorted(api.list_repo_files(name)) for name in names}
    return found


@pytest.mark.parametrize("name", FAMILY)
def test_remote_code_answers_like_the_model_and_travels_on(published, name):
    member, facts = FAMILY[name], published[name]
    loads = len(member.auto_classes) + 1  # and once more from where it was pushed again
    assert facts["classes"] == [f"transformers_modules/{type(member.build()).__name__}"] * loads
    assert facts["same"] == [True] * loads
    assert facts["features"] == [True] * loads
    trainable = sum(value.requires_grad for value in member.build(**FROZEN.get(name, {})).parameters())
    assert facts["trainable"] == [trainable] * loads
    assert facts["processor"] == "transformers_modules/FlavourProcessor"
    files = published["files"]
    assert files[f"org/{name}"] == files[f"org/{name}-again"]
    assert {"model.safetensors", "config.json", "processor_config.json"} <= set(files[f"org/{name}"])
    assert not [file for file in files[f"org/{name}"] if file.endswith((".bin", ".pkl", ".pt"))]


def test_remote_code_takes_adapters(published):
    assert [name for name in FAMILY if not (published[name]["adapted"] and published[name]["merged"])] == []


def test_captioners_of_both_kinds_load_from_folders_of_one_name_and_can_be_pickled(published):
    kinds = ("FlavourForTransformerCaptioning", "FlavourForMergeCaptioning")
    assert published["captioners"] == [[kind, kind] for kind in kinds]


def test_pipelines_answer_alike_for_paths_addresses_pictures_arrays_and_batches(published):
    assert len(published["pipelines"]) == 8
    for name, answers in published["pipelines"].items():
        batch = answers.pop("batch")
        first, *others = answers.values()
        assert 1 <= len(first) <= 2, name
        for other in [*others, *batch]:
            assert len(other) == len(first), name
            for one, two in zip(first, other, strict=True):
                assert one.keys() == two.keys(), name
                assert [one[key] for key in one] == pytest.approx([two[key] for key in two], abs=1e-4), name
