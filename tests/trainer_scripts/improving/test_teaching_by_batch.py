"""A teacher of masks and captions looks at each batch beside the student."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.modeling_flavour.family import FAMILY
from tests.trainer_scripts.conftest import make_row, png, refused, write_dataset
from tests.trainer_scripts.tasks.captioning.conftest import caption_data, tiny_arguments  # noqa: F401
from tests.trainer_scripts.tasks.segmentation.conftest import arguments, mask_data  # noqa: F401
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.tasks.common.teacher import Teacher

SAME = [((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))] * 2
STEPS = ("--max_steps", "2", "--eval_strategy", "steps", "--save_strategy", "steps", "--eval_steps", "2",
         "--save_steps", "2")  # fmt: skip


def student_and_teacher(name, normal=SAME):
    torch.manual_seed(0)
    student = FAMILY[name].build().eval()
    order = sorted(student.config.id2label) if name.startswith("segmenter") else []
    return student, Teacher(copy.deepcopy(student), 0.5, order, normal), FAMILY[name].batch(3)


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return max(value.grad.abs().max().item() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("name", ["segmenter", "segmenter-multitask", "captioner-transformer", "captioner-merge"])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(name):
    student, teacher, batch = student_and_teacher(name)

    def taught(pictures):
        inputs = {**batch, "pixel_values": pictures}
        outputs = student(**inputs)
        if name.startswith("captioner"):
            return teacher.word_loss(outputs.logits, inputs, None)
        return teacher.mask_loss(outputs, pictures, 1.0)

    at_rest = gradient(taught(batch["pixel_values"]), student)
    with torch.no_grad():
        for value in student.parameters():
            value += 0.05 * torch.randn_like(value)
    assert at_rest < 0.01 * gradient(taught(batch["pixel_values"]), student)


def test_a_teacher_sees_the_pictures_with_its_own_mean_and_deviation():
    normal = [((0.5, 0.4, 0.3), (0.5, 0.2, 0.1)), ((0.1, 0.2, 0.3), (0.3, 0.3, 0.3))]
    student, teacher, _ = student_and_teacher("segmenter", normal)
    shares = torch.rand(3, 3, 32, 32)
    (mean, std), (its_mean, its_std) = [[torch.tensor(part).view(3, 1, 1) for part in each] for each in normal]
    expected = student(pixel_values=(shares - its_mean) / its_std).logits
    torch.testing.assert_close(teacher((shares - mean) / std).logits, expected, rtol=1e-3, atol=1e-4)


def test_words_are_weighted_as_in_the_loss_of_the_student():
    student, teacher, batch = student_and_teacher("captioner-transformer")
    logits = student(**batch).logits
    words = batch["labels"].ne(-100).sum()
    mean, shared = (teacher.word_loss(logits, batch, number) for number in (None, 2 * words))
    torch.testing.assert_close(mean, 2 * shared)


def unmasked_row(number):
    """Return a row with a picture of its own and no mask."""
    row = make_row("train", 1000 + number)
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return row | {"image": {"bytes": png(pixels), "path": None}, "mask": None, "ingredient_labels": []}


def differ(one, two):
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    return any(not torch.equal(value, second[name]) for name, value in first.items())


def test_a_segmenter_and_a_captioner_are_taught(mask_data, caption_data, tmp_path, capsys):  # noqa: F811
    masks = arguments("segmentation", mask_data, tmp_path / "masks", *STEPS)
    words = tiny_arguments("transformer", caption_data, tmp_path / "words", *STEPS)
    for command in (masks, words):
        train.main(command)
        teacher = command[command.index("--output_dir") + 1]
        taught = [*command, "--output_dir", f"{teacher}-taught", "--teacher", teacher]
        train.main(taught)
        assert "looks at each training batch" in capsys.readouterr().out
        assert read_metrics(tmp_path / f"{teacher}-taught")["teacher"]["share"] == 0.5
        assert differ(tmp_path / teacher, tmp_path / f"{teacher}-taught")
    unheard = [*masks, "--output_dir", f"{tmp_path}/unheard", "--teacher", f"{tmp_path}/masks", "--teacher_share", "0"]
    train.main(unheard)
    assert not differ(tmp_path / "masks", tmp_path / "unheard")
    # Pictures without masks, which the teacher alone speaks of; the other two heads say why they take none.
    plain = write_dataset(tmp_path / "plain", {"train": [unmasked_row(number) for number in range(7)]})
    wider = [*masks, "--output_dir", tmp_path / "wider", "--teacher", tmp_path / "masks", "--unlabelled", plain]
    train.main([str(word) for word in wider])
    assert "looks at each training batch, 7 rows of" in capsys.readouterr().out
    assert read_metrics(tmp_path / "wider")["teacher"]["unlabelled_rows"] == 7
    assert differ(tmp_path / "masks-taught", tmp_path / "wider")
    tells = [*words, "--output_dir", tmp_path / "x", "--teacher", tmp_path / "words", "--unlabelled", plain]
    assert "tells the next word of a caption, and these rows have none" in refused(capsys, train, *tells)
    named = arguments("multitask", mask_data, tmp_path / "x", "--teacher", tmp_path / "masks", "--init_segmenter",
                      tmp_path / "masks", "--unlabelled", plain)  # fmt: skip
    assert "unlabelled rows have no list of ingredients" in refused(capsys, train, *named)
    # A teacher of other words, and one that lacks a head.
    smaller = [*words, "--output_dir", tmp_path / "x", "--teacher", tmp_path / "words", "--vocabulary_size", "9"]
    assert "has another vocabulary" in refused(capsys, train, *smaller)
    both = arguments("multitask", mask_data, tmp_path / "x", "--teacher", tmp_path / "masks", "--init_segmenter",
                     tmp_path / "masks")  # fmt: skip
    assert "lacks an ingredient head" in refused(capsys, train, *both)
