"""Inputs as users of transformers and datasets have them: rows, columns, missing parts, addresses, collators."""

import base64
import io

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from PIL import Image, features
from transformers import AutoProcessor, DataCollatorWithPadding, pipeline

from modeling_flavour import FlavourProcessor
from modeling_flavour.pictures_flavour import open_picture

from .family import FAMILY
from .tiny import tiny_resnet, tiny_tokenizer

FUSIONS = [name for name in FAMILY if name.startswith("fusion")]
COLUMNS = {"input_ids", "attention_mask", "pixel_values", "text_present", "image_present"}
TASKS = {
    "fusion-early": "flavour-classification",
    "image": "flavour-classification",
    "text": "flavour-classification",
    "captioner-transformer": "flavour-captioning",
    "segmenter": "flavour-segmentation",
}


@pytest.fixture(scope="module")
def processor():
    return FlavourProcessor.from_parts(text=tiny_tokenizer(), image=tiny_resnet(), size=32)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def rows(picture):
    """Rows of a table with more columns than a model reads; one has no picture, one no title."""
    both = {"id": "one", "image": picture, "title": "greek salad", "ingredients": ["feta"], "flavour": 1}
    return Dataset.from_list([both, {**both, "image": None, "title": "soup"}, {**both, "title": None}])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in (*TASKS, "fusion-late", "segmenter-multitask", "captioner-merge"):
        made[name] = str(tmp_path_factory.mktemp(name))
        FAMILY[name].build().save_pretrained(made[name])
        FAMILY[name].processor().save_pretrained(made[name])
    return made


def pipe_of(folders, name, task=None):
    return pipeline(task or TASKS[name], model=folders[name], trust_remote_code=True)


@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
def test_columns_do_not_depend_on_the_rows(processor, rows, return_tensors):
    def read(row):
        return processor(images=row["image"], text=row["title"], return_tensors=return_tensors)

    mapped = rows.map(read, remove_columns=rows.column_names)
    assert set(mapped.column_names) == COLUMNS
    assert mapped["image_present"][:] == [[True], [False], [True]]
    assert mapped["text_present"][:] == [[True], [True], [False]]
    for part in (rows.select([0]), rows.select([1]), rows):
        batch = processor(images=part["image"], text=part["title"])
        assert set(batch) == COLUMNS
    assert set(processor.model_input_names) == COLUMNS


def test_arguments_that_are_left_out_have_no_columns(processor, picture):
    assert set(processor(text="greek salad")) == {"input_ids", "attention_mask"}
    assert set(processor(images=picture)) == {"pixel_values"}
    only_pictures, only_texts = (
        FlavourProcessor.from_parts(image=tiny_resnet()),
        FlavourProcessor(None, tiny_tokenizer()),
    )
    assert set(only_pictures(images=picture, text=None)) == {"pixel_values"}
    assert set(only_texts(text="soup", images=None)) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("name", FUSIONS)
def test_a_part_that_is_none_counts_as_absent(name, processor, picture):
    model = FAMILY[name].build().eval()
    for given in ({"text": "greek salad"}, {"images": picture}):
        none = {"images": None, "text": None, **given}
        with torch.no_grad():
            expected, found = model(**processor(**given)).logits, model(**processor(**none)).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_single_rows_are_joined_by_the_usual_collator(name, processor, rows):
    model = FAMILY[name].build().eval()
    mapped = rows.map(
        lambda row: {**processor(images=row["image"], text=row["title"]), "label": row["flavour"]},
        remove_columns=rows.column_names,
    )
    batch = DataCollatorWithPadding(processor)([mapped[number] for number in range(3)])
    assert batch.pop("labels").tolist() == [1, 1, 1]
    together = processor(images=rows["image"], text=rows["title"])
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, model(**together).logits, rtol=1e-4, atol=1e-5)
    padded = processor.pad([mapped[0]], padding="max_length", max_length=9, return_tensors="np")
    assert padded["input_ids"].shape == (1, 9)
    assert isinstance(padded["pixel_values"], np.ndarray)


def test_tensors_of_numpy_and_lists_hold_the_same(processor, picture):
    torched = processor(images=picture, text="greek salad")
    arrays = processor(images=picture, text="greek salad", return_tensors="np")
    lists = processor(images=picture, text="greek salad", return_tensors=None)
    for name, value in torched.items():
        np.testing.assert_array_equal(arrays[name], value.numpy())
        np.testing.assert_array_equal(np.array(lists[name]), value.numpy())
    with pytest.raises(ValueError, match="must be 'pt', 'np' or None, not 'tf'"):
        processor(images=picture, return_tensors="tf")


def test_addresses_of_every_kind_give_the_same_picture(picture, tmp_path):
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    path = tmp_path / "a plate.png"
    path.write_bytes(stream.getvalue())
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    kinds = (text, wrapped, f"data:image/png;base64,{text}", path.as_uri(), f"file:{path}", str(path), path)
    for given in kinds:
        np.testing.assert_array_equal(np.asarray(open_picture(given)), np.asarray(picture))


def test_avif_and_the_base64_of_addresses_are_read_from_everywhere(picture, tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    stream = io.BytesIO()
    picture.save(stream, "AVIF", quality=100, subsampling="4:4:4")
    content, path = stream.getvalue(), tmp_path / "a.avif"
    path.write_bytes(content)
    text, address = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode().rstrip("=")
    kinds = (
        content,
        text,
        address,
        f"data:image/avif;base64,{text}",
        path,
        str(path),
        path.as_uri(),
        {"bytes": content},
    )
    first = np.asarray(open_picture(content), np.int16)
    assert np.abs(first - np.asarray(picture, np.int16)).mean() < 4
    for given in kinds:
        np.testing.assert_array_equal(np.asarray(open_picture(given)), first)


@pytest.mark.parametrize("start", ["", "data:image/png;base64,", "/nowhere/", "file:///", "a secret text "])
def test_an_error_never_prints_the_input(start):
    for secret in ("QUJD" * 3000, "QUJD" * 3000 + "!"):
        with pytest.raises((ValueError, OSError)) as error:
            open_picture(start + secret)
        assert "QUJDQUJD" not in str(error.value)
        assert len(str(error.value)) < 300


def test_an_error_never_prints_a_text(folders, processor):
    secret = "my grandmother's secret soup " * 9
    for call in (
        lambda: pipe_of(folders, "fusion-early")(secret),
        lambda: pipe_of(folders, "fusion-early")({"txt": secret}),
        lambda: pipe_of(folders, "image")(secret),
        lambda: processor(images=secret),
        lambda: processor(text={"title": secret}),
    ):
        with pytest.raises((ValueError, TypeError, OSError)) as error:
            call()
        assert "grandmother" not in str(error.value)


@pytest.mark.parametrize("name", ["fusion-early", "text"])
def test_a_pipeline_takes_a_table_of_pandas_and_a_column_of_one(name, folders, rows):
    pipe = pipe_of(folders, name)
    table = rows.to_pandas().set_index([[5, 7, 9]])  # pictures as bytes, gaps as pandas has them
    table["title"] = table["title"].where(table["title"].notna(), float("nan"))
    if name == "text":
        assert pipe(table["title"][:2]) == pipe(rows["title"][:2])
    else:
        assert pipe(table) == pipe(rows)


@pytest.mark.parametrize("name", TASKS)
def test_a_pipeline_takes_rows_data_sets_columns_and_streams(name, folders, rows):
    pipe, rows = pipe_of(folders, name), rows.select([0, 0])
    one = rows[0]
    plain = {"fusion-early": {"image": one["image"], "text": one["title"]}, "text": one["title"]}.get(
        name, one["image"]
    )

    def scores(answer):
        return [entry["score"] for entry in answer]

    expected = scores(pipe(plain))
    assert scores(pipe(one)) == pytest.approx(expected, abs=1e-5)
    for size in (1, 2):
        answers = pipe(rows, batch_size=size)
        assert isinstance(answers, list)
        assert [scores(answer) for answer in answers] == [pytest.approx(expected, abs=1e-5)] * 2
    streamed = pipe(rows.to_iterable_dataset())
    assert isinstance(rows.to_iterable_dataset(), IterableDataset)
    assert scores(next(iter(streamed))) == pytest.approx(expected, abs=1e-5)
    if name in ("image", "captioner-transformer", "segmenter"):
        assert [scores(answer) for answer in pipe(rows["image"])] == [pytest.approx(expected, abs=1e-5)] * 2


def test_a_row_is_read_by_the_columns_that_the_model_learned_from(tmp_path, folders, picture):
    processor = FAMILY["fusion-early"].processor()
    processor.text_column, processor.image_column = "caption", "photo"
    FAMILY["fusion-early"].build().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True).text_column == "caption"
    pipe = pipeline("flavour-classification", model=str(tmp_path), trust_remote_code=True)
    row = {"caption": ["greek", "salad"], "photo": picture, "title": "soup", "id": 3}
    assert pipe(row) == pipe(image=picture, text="greek salad")
    with pytest.raises(ValueError, match=r"got also: title\. A row of a data set has photo and caption"):
        pipe({"title": "soup", "image": picture})


@pytest.mark.parametrize(("name", "size"), [("fusion-early", 16), ("fusion-late", 16), ("text", 8), ("image", 8)])
def test_feature_extraction_gives_what_the_head_reads(name, size, folders, rows, picture):
    model, processor = FAMILY[name].build().eval(), FAMILY[name].processor()
    pipe = pipe_of(folders, name, "feature-extraction") if name in folders else None
    given = {"images": picture} if name != "text" else {}
    given |= {"text": "greek salad"} if name != "image" else {}
    inputs = processor(**given)
    with torch.no_grad():
        parts = []
        if "input_ids" in inputs:
            parts.append(model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output)
        if "pixel_values" in inputs:
            parts.append(model.get_image_features(inputs["pixel_values"]).pooler_output)
        output = model(**inputs)
    expected = torch.cat(parts, dim=-1)
    embeds = [value for value in (output.text_embeds, output.image_embeds) if value is not None]
    torch.testing.assert_close(expected, torch.cat(embeds, dim=-1), rtol=1e-4, atol=1e-5)
    assert expected.shape == (1, size)
    found = pipe(rows[0])
    torch.testing.assert_close(torch.tensor(found)[None], expected, rtol=1e-4, atol=1e-5)
    assert pipe(rows[0], return_tensors=True).shape == (size,)
    if name.startswith("fusion"):
        assert pipe({"text": "greek salad"})[size // 2 :] == [0] * (size // 2)
        assert pipe("greek salad") == pipe({"text": "greek salad"})
        # In one batch with a complete sample too.
        assert pipe([rows[0], {"image": picture}], batch_size=2)[1][: size // 2] == [0] * (size // 2)


@pytest.mark.parametrize("name", ["captioner-merge", "captioner-transformer", "segmenter", "segmenter-multitask"])
def test_models_of_pictures_alone_have_features_too(name, folders, picture):
    model, processor = FAMILY[name].build().eval(), FAMILY[name].processor()
    with torch.no_grad():
        features = model.get_image_features(processor(images=picture)["pixel_values"])
    expected = features.pooler_output
    torch.testing.assert_close(features.last_hidden_state.mean(1), expected)
    assert features.hidden_states is None
    found = pipe_of(folders, name, "feature-extraction")(picture)
    torch.testing.assert_close(torch.tensor(found)[None], expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_part_that_is_not_there_are_refused(processor, picture):
    with pytest.raises(ValueError, match="sees pictures only, so it has no features of texts"):
        FAMILY["image"].build().get_text_features(processor(text="soup")["input_ids"])
    with pytest.raises(ValueError, match="reads text only, so it has no features of pictures"):
        FAMILY["text"].build().get_image_features(processor(images=picture)["pixel_values"])


def test_scores_become_masks_of_the_pictures_own_size(picture):
    model, processor = FAMILY["segmenter"].build().eval(), FAMILY["segmenter"].processor()
    with torch.no_grad():
        outputs = model(**processor(images=[picture, picture]))
    assert torch.equal(torch.stack(processor.post_process_semantic_segmentation(outputs)), outputs.logits.argmax(1))
    sizes = [(40, 50), torch.tensor([20, 10])]
    masks = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    assert [tuple(mask.shape) for mask in masks] == [(40, 50), (20, 10)]
    assert masks[0].dtype == torch.int64
    with pytest.raises(ValueError, match="Got 1 target_sizes for 2 pictures"):
        processor.post_process_semantic_segmentation(outputs, target_sizes=[(4, 4)])
    with torch.no_grad():
        outputs = FAMILY["ingredients"].build().eval()(**processor(images=picture))
    with pytest.raises(ValueError, match="it has no masks to give"):
        processor.post_process_semantic_segmentation(outputs)
