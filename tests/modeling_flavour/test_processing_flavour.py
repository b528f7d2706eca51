"""Pictures of every kind and texts to tensors."""

import base64
import io
import time

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor, TimmWrapperConfig

from modeling_flavour import FlavourProcessor
from modeling_flavour.processing_flavour import image_processor_for, open_picture

from .tiny import tiny_resnet, tiny_tokenizer, tiny_vit


@pytest.fixture(scope="module")
def processor():
    return FlavourProcessor.from_parts(text=tiny_tokenizer(), image=tiny_resnet(), size=32)


@pytest.fixture
def colours():
    """Smooth colours, so that resizing and compression change little."""
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    return Image.fromarray(
        np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:, None], (1, 48)), np.full((48, 48), 40)], -1).astype(np.uint8)
    )


def test_channels_stay_red_green_blue(processor):
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    mean, std = (torch.tensor(getattr(processor.image_processor, name)) for name in ("image_mean", "image_std"))
    pixels = processor(images=red)["pixel_values"][0].mean(dim=(1, 2))
    torch.testing.assert_close(pixels, (torch.tensor([1.0, 0, 0]) - mean) / std, rtol=1e-4, atol=1e-4)


def test_kinds_of_pictures_give_the_same_colours(colours):
    exact = np.asarray(colours, dtype=int)
    cmyk = io.BytesIO()
    colours.convert("CMYK").save(cmyk, "TIFF")
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    kinds = {
        "array": np.asarray(colours),
        "channels first": np.asarray(colours).transpose(2, 0, 1),
        "tensor": torch.from_numpy(np.array(colours)),
        "tensor with a gradient": (torch.from_numpy(np.array(colours)) / 255).requires_grad_(),
        "bytes that may change": bytearray(turned.getvalue()),
        "open file": io.BytesIO(turned.getvalue()),
        "data address": f"data:image/png;base64,{base64.b64encode(turned.getvalue()).decode()}",
        "floats": np.asarray(colours) / 255,
        "CMYK": cmyk.getvalue(),
        "turned by its EXIF tag": turned.getvalue(),
        "undecoded": {"bytes": turned.getvalue(), "path": None},
    }
    for kind, given in kinds.items():
        assert np.abs(np.asarray(open_picture(given), dtype=int) - exact).max() <= 1, kind
    palette = np.asarray(open_picture(colours.quantize(256)), dtype=int)
    assert np.abs(palette - exact).mean() < 8


def test_greys_of_every_depth():
    grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    file = io.BytesIO()
    deep.save(file, "PNG")
    for given in (grey, Image.fromarray(grey), deep, file.getvalue(), grey.astype(np.uint16) * 257, grey[..., None]):
        opened = open_picture(given)
        assert opened.mode == "RGB"
        assert np.abs(np.asarray(opened, dtype=int) - grey[..., None]).max() <= 1


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    for given in (clear, clear.convert("LA"), palette):
        assert np.asarray(open_picture(given)).min() == 255


def test_a_damaged_header_and_too_many_pixels_are_unreadable(monkeypatch):
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "PNG")
    whole = stream.getvalue()
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        open_picture(whole[:11] + b"\x05" + whole[12:])  # the length of the first chunk
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        open_picture(whole)


def test_unreadable_pictures_are_refused(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as a picture"):
        open_picture(tmp_path / "broken.jpg")
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/plate\.jpg cannot be fetched"):
        open_picture("http://127.0.0.1:9/plate.jpg")
    with pytest.raises(ValueError, match="needs shape"):
        open_picture(np.zeros((2, 5, 7)))
    with pytest.raises(ValueError, match="finite values"):
        open_picture(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="an array of complex128"):
        open_picture(np.zeros((4, 4), complex))
    with pytest.raises(ValueError, match=r"the data address of 4023 characters cannot be fetched"):
        open_picture("data:image/png;base64," + "A" * 4001)
    with pytest.raises(ValueError, match="needs bytes or a path, got one of 'image'"):
        open_picture({"image": "plate.jpg"})
    for given, kind in ((5, "int"), ([[]], "list")):
        with pytest.raises(TypeError, match=f"A picture may be a PIL image, .* got {kind}"):
            open_picture(given)


def test_whole_pictures_are_shrunk_without_cropping():
    wide = Image.fromarray(np.tile(np.linspace(0, 255, 100).astype(np.uint8), (50, 1)))
    for backbone in (tiny_resnet(), tiny_vit()):
        span = {}
        for whole in (True, False):
            processor = FlavourProcessor.from_parts(image=backbone, size=32, whole=whole)
            pixels = processor(images=wide)["pixel_values"]
            assert pixels.shape == (1, 3, 32, 32)
            span[whole] = (pixels[0, 0, 0, -1] - pixels[0, 0, 0, 0]).item()
        assert span[True] > 1.5 * span[False]


@pytest.mark.parametrize("architecture", ["inception_resnet_v2", "efficientnet_b4", "resnet50"])
def test_timm_numbers_are_the_backbones_own(architecture):
    """Mean, deviation, size, interpolation and crop equal timm's evaluation transform."""
    rows, columns = np.mgrid[0:370, 0:500]
    image = Image.fromarray(np.stack([rows / 2, columns / 2, (rows + columns) / 4], axis=-1).astype(np.uint8))
    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(architecture).to_dict())
    expected = timm.data.create_transform(**data, is_training=False)(image)
    processed = image_processor_for(TimmWrapperConfig(architecture=architecture))(images=image, return_tensors="pt")
    pixels = processed["pixel_values"][0]
    assert pixels.shape == expected.shape
    assert (pixels - expected).abs().mean() < 0.02  # they round half a pixel differently when they crop


def test_texts_are_cut_and_padded(processor):
    batch = processor(text=["greek salad", "greek " * 90])
    assert batch["input_ids"].shape == (2, 40)
    assert batch["attention_mask"].sum(1).tolist() == [2, 40]
    assert processor(text="greek", padding="max_length")["input_ids"].shape == (1, 40)
    assert set(batch) == {"input_ids", "attention_mask"}


def test_arguments_are_those_of_any_processor_or_refused(processor, colours):
    usual = {"return_tensors": "pt", "padding": "max_length", "truncation": True, "max_length": 6}
    assert processor(text=["greek " * 9, "soup"], **usual)["input_ids"].shape == (2, 6)
    assert processor(text="greek " * 90, padding=False, truncation=False)["input_ids"].shape == (1, 90)
    with pytest.raises(ValueError, match="takes no do_rescale; it takes images, text, padding, truncation"):
        processor(images=colours, do_rescale=False)
    with pytest.raises(TypeError, match="A text is a string, or None where a sample has none, got Image"):
        processor("greek salad", colours)


def test_columns_of_a_data_set_are_batches(processor, colours):
    data = Dataset.from_dict({"image": [colours, colours], "title": ["greek salad", "soup"]})
    expected = processor(images=[colours, colours], text=["greek salad", "soup"])
    for texts in (data["title"], np.array(data["title"][:])):
        batch = processor(images=data["image"], text=texts)
        assert all(torch.equal(batch[name], value) for name, value in expected.items())


def test_letters_only():
    ids = {
        flag: FlavourProcessor(tokenizer=tiny_tokenizer(), letters_only=flag)(text="2 greek-salad!") for flag in (0, 1)
    }
    assert ids[1]["input_ids"].tolist() == [[2, 3]]
    assert ids[0]["input_ids"].shape[1] > 2


def test_missing_parts_are_said(processor, colours):
    batch = processor(images=[colours, None, colours], text=["greek", "salad", "  "])
    assert batch["image_present"].tolist() == [True, False, True]
    assert batch["text_present"].tolist() == [True, True, False]
    assert batch["attention_mask"][2].sum() == 0
    assert not batch["pixel_values"][1].any()
    complete = processor(images=[colours], text=["greek"])
    assert complete["image_present"].tolist() == complete["text_present"].tolist() == [True]


def test_errors_name_the_sample_and_the_part(processor, colours):
    with pytest.raises(ValueError, match="Sample 1 has neither a picture nor a text"):
        processor(images=[colours, None], text=["greek", None])
    with pytest.raises(ValueError, match="at least one picture or text"):
        processor()
    with pytest.raises(ValueError, match="2 pictures and 1 texts"):
        processor(images=[colours, colours], text=["greek"])
    with pytest.raises(ValueError, match="no tokenizer"):
        FlavourProcessor.from_parts(image=tiny_resnet())(text="greek")
    with pytest.raises(ValueError, match="no image processor"):
        FlavourProcessor.from_parts(text=tiny_tokenizer())(images=colours)
    with pytest.raises(ValueError, match="an image_processor, a tokenizer, or both"):
        FlavourProcessor()


@pytest.mark.parametrize("parts", [("text",), ("image",), ("text", "image")])
def test_processor_survives_its_files(tmp_path, parts, colours):
    given = {"text": tiny_tokenizer(), "image": tiny_resnet()}
    processor = FlavourProcessor.from_parts(**{name: given[name] for name in parts}, max_length=7)
    processor.save_pretrained(tmp_path)
    again = FlavourProcessor.from_pretrained(tmp_path)
    assert (again.max_length, again.present_parts()) == (7, processor.present_parts())
    inputs = {"text": "greek salad", "images": colours}
    inputs = {name: inputs[name] for name in ("text", "images") if name.removesuffix("s") in parts}
    for name, value in processor(**inputs).items():
        assert torch.equal(value, again(**inputs)[name])
    assert (tmp_path / "processing_flavour.py").is_file()
    assert isinstance(AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True), FlavourProcessor)


def test_small_pictures_are_processed_fast(processor):
    pictures = [Image.new("RGB", (128, 128), (number, 0, 0)) for number in range(128)]
    processor(images=pictures[:2])
    start = time.perf_counter()
    processor(images=pictures)
    assert time.perf_counter() - start < 5  # about 0.15 s on one idle core
