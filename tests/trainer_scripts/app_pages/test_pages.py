"""The answers of the pages, without a browser: right, escaped, within limits."""

import io
import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.building.corrections import read_corrections
from dataset_builder.building.plan import BuildSettings, Plan
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.pictures import illustrator
from tests.dataset_builder.tiny_build import make_row, make_rows, write_build
from tests.modeling_flavour.family import FAMILY, classifier
from tests.tiny_pipelines import save, tiny_stable_diffusion
from tests.trainer_scripts.app_pages.conftest import HOSTILE
from tests.trainer_scripts.conftest import refused
from trainer_scripts import app as app_script
from trainer_scripts.app_pages import caption, labels, markup, plate, taste, what_if
from trainer_scripts.app_pages.data_marks import KEEP, with_mark, without_mark, write_marks
from trainer_scripts.app_pages.data_view import row_html, tiles_html
from trainer_scripts.app_pages.inputs import as_message, open_upload, short
from trainer_scripts.app_pages.models import ServedModel
from trainer_scripts.data.row_index import ALL, HUMAN, REJECTED, SOFT, open_rows

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
NOTHING = (ALL, ALL, ALL, ALL, "")


def test_a_stranger_s_text_is_text():
    shown = markup.text(HOSTILE)
    assert "<" not in shown
    assert "{" not in shown
    assert "$" not in shown
    assert markup.text("\x1b[2Ja") == "\\x1b[2Ja"


def test_taste_answers_with_either_part_and_says_when_it_is_not_sure(served):
    model = served["fusion"]
    both, title = model.probabilities(PICTURE, "lemon tart"), model.probabilities(None, "lemon tart")
    assert both.sum() == pytest.approx(1)
    assert not np.allclose(both, title)
    assert (model.temperature, model.calibrated) == (2.0, True)
    assert "below 50 % are not given: a limit of this app" in taste.answer_html(model, PICTURE, "lemon tart")
    # Its own limit holds for what it says before calibration, which lowers the share of the best label here.
    raw = model.answer(PICTURE, "lemon tart").raw
    assert raw > both.max() + 0.01
    model.own_limit = raw - 0.005
    html = taste.answer_html(model, PICTURE, "lemon tart")
    assert "Not sure" not in html
    assert "before calibration" in html
    assert "the model&#x27;s own limit" in html
    model.own_limit = raw + 0.005
    assert "Not sure" in taste.answer_html(model, PICTURE, "lemon tart")
    model.own_limit = None
    assert "logits divided by 2.00" in taste.answer_html(model, PICTURE, HOSTILE)
    assert "<video" not in taste.answer_html(model, PICTURE, HOSTILE) + taste.why_html(model, PICTURE, HOSTILE)
    with pytest.raises(BadInputError, match="fusion reads a photograph or a title; give it one"):
        model.probabilities(None, "  ")


def test_taste_says_whether_the_model_has_seen_such_inputs(served):
    assert "is not known to this model" in taste.answer_html(served["fusion"], PICTURE, "lemon tart")
    model = classifier(modality_dropout=0.3)().eval()
    rows = {part: torch.randn(20, model.familiar_size(part)) for part in ("text", "image")}
    model.learn_familiarity(rows, rows, 1.0)
    knowing = ServedModel(replace(served["fusion"].saved, model=model), own_limit=0.0)
    for known in (model.text_familiarity, model.image_familiarity):
        known.limit.fill_(torch.inf)
    html = taste.answer_html(knowing, PICTURE, "lemon tart")
    assert "The title is like those of training." in html
    assert "The photograph is like those of training." in html
    assert "The photograph" not in taste.answer_html(knowing, None, "lemon tart"), "of what was given alone"
    model.image_familiarity.limit.fill_(-1)
    html = taste.answer_html(knowing, PICTURE, "lemon tart")
    assert "The photograph is unlike those of training, so it is left out." in html
    assert "Not sure" not in html
    # With nothing familiar there is no answer, however large its share, and nothing is left out.
    model.text_familiarity.limit.fill_(-1)
    html = taste.answer_html(knowing, PICTURE, "lemon tart")
    assert "Not sure" in html
    assert "nothing of this is like what the model learned from" in html
    assert "left out" not in html


def test_why_shows_map_words_shares_and_what_changes_the_answer(served):
    html = taste.why_html(served["fusion"], PICTURE, "lemon tart")
    for part in (
        "Warm where the evidence",
        ">lemon <b>",
        "the photograph",
        "without the title",
        "without the photograph",
    ):
        assert part in html
    assert "without the title" not in taste.why_html(served["fusion"], None, "lemon tart"), "nothing to leave out"


def test_captions_and_where_the_model_looked(served):
    found = caption.captions(served["captioner"], PICTURE, caption.BEAMS, 3, 2, 1.0)
    assert len(found) == 2
    assert found[0]["log_probability"] >= found[1]["log_probability"]
    assert len(caption.captions(served["captioner"], PICTURE, caption.SAMPLING, 1, 3, 0.8)) == 3
    html = caption.look_html(served["captioner"], PICTURE)
    words = caption.words_with_maps(served["captioner"], PICTURE)
    assert html.count('class="w w') == len(words) == html.count('class="layer m')


def test_masks_can_be_switched_and_tastes_are_weighed(served):
    html = plate.answer_html(served["segmenter"], PICTURE)
    found = plate.masks(served["segmenter"], PICTURE)
    assert html.count('type="checkbox"') == len(found) >= 1
    assert found[0]["label"] in html
    assert "Flavour map" in html


def test_a_threshold_trades_precision_for_recall(served):
    measured = labels.Measured(
        np.array([[1, 0], [1, 1], [0, 1]]), np.array([[0.9, 0.6], [0.4, 0.8], [0.2, 0.3]]), "3 rows"
    )
    assert measured.at(0.5) == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    assert measured.at(0.25) == (pytest.approx(4 / 5), 1.0)
    assert measured.at(0.95) == (1.0, 0.0)
    shares = served["several"].probabilities(PICTURE, "lemon").tolist()
    assert "3 rows" in labels.answer_html(served["several"].saved.names, shares, 0.5, measured)
    absent = labels.measure(served["several"], None)
    assert absent.done.wait(20)
    assert "give --dataset" in absent.fault
    assert "Give --dataset" in labels.measured_html(0.5, absent)


def test_validation_rows_are_measured_once_in_a_thread(served, app_data):
    measured = labels.measure(served["several"], str(app_data))
    assert measured.done.wait(60)
    assert measured.fault == ""
    precision, recall = measured.at(0.0)
    assert recall == 1.0
    assert 0 < precision < 1
    assert "rows of validation" in measured.where


def test_an_exchange_changes_title_ingredients_plate_and_labels(served):
    title, lines = what_if.exchanged("Beef with Soy Sauce", ["beef", "2 tbsp soy sauce"], "soy sauce", "lemon")
    assert (title, lines) == ("Beef with lemon", ["beef", "lemon"])
    assert what_if.exchanged("Tart", ["apples", "sugar"], "apple", "")[1] == ["sugar"]
    with pytest.raises(BadInputError, match="no ingredient is named 'tofu'"):
        what_if.exchanged("Tart", ["apples"], "tofu", "egg")
    kitchen = what_if.Kitchen("plating")
    before, after = kitchen.draw("Salad", ["lemon", "lettuce"]), kitchen.draw("Salad", ["tomato", "lettuce"])
    assert before.image.tobytes() == what_if.Kitchen("plating").draw("Salad", ["lemon", "lettuce"]).image.tobytes()
    assert before.image.tobytes() != after.image.tobytes()
    html = what_if.side_html(kitchen, [served["fusion"]], "As it is", HOSTILE, ["lemon", "lettuce"], "lemon")
    assert "By the rule" in html
    assert "By fusion, from the plate and the title" in html
    assert "<video" not in html


def test_a_diffusion_pipeline_draws_the_new_plate(served, tmp_path):
    folder = save(tiny_stable_diffusion(), tmp_path / "sd")
    kitchen, models = what_if.Kitchen(folder), [served["fusion"]]
    html = what_if.exchange_html(kitchen, models, "Beef with soy sauce", "beef\nsoy sauce", "soy sauce", "lemon")
    assert html.count("data:image/jpeg") == 2
    assert f"Each plate is drawn by {folder}, with one seed." in html
    assert html.count("By fusion, from the plate and the title") == 2
    # In the size that the pipeline has learned; a plate that was drawn is kept.
    before = kitchen.draw("Beef with soy sauce", ["beef", "soy sauce"])
    assert before.image.size == (64, 64)
    assert kitchen.draw("Beef with soy sauce", ["beef", "soy sauce"]) is before
    assert before.image.tobytes() != kitchen.draw("Beef with lemon", ["beef", "lemon"]).image.tobytes()


def test_a_plate_that_every_attempt_was_rejected_of_is_named_with_its_reasons(served, monkeypatch):
    monkeypatch.setattr(illustrator, "picture_fault", lambda *given, **named: "black")
    kitchen = what_if.Kitchen("plating")
    pictures = ServedModel(replace(served["fusion"].saved, model=FAMILY["image"].build().eval(), name="pictures"))
    html = what_if.side_html(kitchen, [served["fusion"], pictures], "As it is", "Soup", ["lemon"], "lemon")
    assert "Every drawn plate was rejected: black (seed 7);" in html
    assert "By fusion, from the title:" in html
    assert "pictures reads the plate alone, so it has no answer" in html


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [("nowhere/none", "pipeline 'nowhere/none' is neither a folder here"), (".", "has no model_index.json")],
)
def test_a_pipeline_that_cannot_draw_ends_the_command_before_it_serves(capsys, pipeline, message):
    assert message in refused(capsys, app_script, "--pipeline", pipeline)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture at all", "cannot be read as a picture"),
        (b"", "cannot be read as a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture"),
    ],
)
def test_bad_pictures_are_a_message(tmp_path, content, message):
    path = tmp_path / "upload.png"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        open_upload(str(path))


def test_a_picture_of_too_many_pixels_is_never_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_builder.named_files.MOST_PIXELS", 1_000)
    path = tmp_path / "large.png"
    Image.new("L", (200, 200)).save(path)
    with pytest.raises(BadInputError, match="megapixels; give a smaller one"):
        open_upload(str(path))
    with pytest.raises(BadInputError, match="the title has 301 characters; give at most 300"):
        short("x" * 301)


def test_refusals_reach_the_page_as_messages_without_markup():
    def refuse(text):
        raise BadInputError(f"no {text}")

    with pytest.raises(gr.Error) as shown:
        as_message(refuse)("<b>bold</b>")
    assert shown.value.message == "No &lt;b&gt;bold&lt;/b&gt;"


def test_rows_are_filtered_without_their_pictures_and_read_by_row_groups(rows, app_data):
    found = rows.find(*NOTHING)
    assert len(found) == 19
    assert {row["flavour"] for row in rows.find(ALL, "sour", ALL, ALL, "").to_pylist()} == {"sour"}
    assert rows.find(ALL, ALL, ALL, ALL, "LEMON").num_rows == sum(
        "emon" in title for title in found["title"].to_pylist()
    )
    assert {row["split"] for row in rows.find("test", ALL, ALL, ALL, "").to_pylist()} == {"test"}
    (row,) = rows.rows(found.slice(3, 1))
    assert row["id"] == found["id"][3].as_py()
    assert row["image"]["bytes"]
    assert rows.choices()["flavour"] == [ALL, *FLAVOURS]


def test_disagreement_attempts_and_labels_by_people_are_found(tmp_path):
    changed = make_rows()
    changed["train"][0] |= {"taste": [0.0, 0.0, 1.0, 0.0, 0.0], "title": "Plain"}
    changed["train"][1] |= {"generation": {**changed["train"][1]["generation"], "attempts": 3}}
    changed["test"][0] |= {"label_source": "human"}
    changed["test"][1] |= make_row(40, title=None, captions=[], mask=None, image=None, label_votes=None)
    table = open_rows(str(write_build(tmp_path / "build", changed)))
    ids = {doubt: table.find(ALL, ALL, ALL, doubt, "")["id"].to_pylist() for doubt in (SOFT, REJECTED, HUMAN)}
    assert changed["train"][0]["id"] in ids[SOFT]
    assert ids[REJECTED] == [changed["train"][1]["id"]]
    assert ids[HUMAN] == [changed["test"][0]["id"]]
    found = table.find(*NOTHING)
    assert "no picture" in tiles_html(table, found, 0, {}) + tiles_html(table, found, 1, {})


def test_a_data_set_that_is_none_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="holds no Parquet file"):
        open_rows(str(tmp_path / "empty"))
    with pytest.raises(BadInputError, match="there is no data set at"):
        open_rows("nowhere")


def test_a_row_shows_everything_and_marks_become_corrections(rows, app_settings, tmp_path):
    found = rows.find(ALL, ALL, ALL, ALL, "Peach tart")
    place = f"{found['file'][0].as_py()}.{found['row'][0].as_py()}"
    row = rows.at(place)
    html = row_html(rows, row)
    assert "<video" not in html
    for part in ("show the mask", "Words that voted", "Captions", "How the picture was made", "Soft label"):
        assert part in html
    for wrong in (None, "7", "0.999999", "../etc", "0.0; drop"):
        with pytest.raises(BadInputError):
            rows.at(wrong)
    for flavour, message in (("brown", "choose a flavour of the list"), (KEEP, "say what is wrong")):
        with pytest.raises(BadInputError, match=message):
            with_mark({}, rows, row, flavour, " ", "", False)
    marks = with_mark({}, rows, row, "sour", "", "=1+1", False)
    assert without_mark(marks, row) == {}
    path = write_marks(marks, tmp_path)
    (said,) = read_corrections([path])
    assert (said.row_id, said.flavour, said.note) == (row["id"], "sour", "=1+1")
    plan = Plan(BuildSettings(app_settings.recipes, generation=app_settings.generation, corrections=(str(path),)))
    sources = [item.label.source for items in plan.recipes.values() for item in items if item.dish.title == HOSTILE]
    assert sources == ["human"]


def test_the_server_is_on_loopback_and_reads_no_file_of_the_machine(app, tmp_path):
    assert app.startswith("http://127.0.0.1:")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for name in (secret, "/etc/passwd", "pyproject.toml", "../../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{app}gradio_api/file={name}")
        assert refusal.value.code in (403, 404), name
    with urllib.request.urlopen(app) as page:
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        config = page.read().decode()
    assert '"analytics_enabled":false' in config.replace(" ", "")


def post(app, name, body, kind="application/json"):
    request = urllib.request.Request(f"{app}gradio_api/{name}", body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status


def test_large_uploads_are_refused(app):
    boundary = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(app, "upload", boundary + b"\0" * (21 << 20) + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    assert refusal.value.code == 413


def test_many_requests_at_once_are_answered(served):
    """One model in memory answers one request at a time, and what it answers is no other's."""
    texts = [f"{word} tart" for word in ("lemon", "chocolate", "mushroom", "feta")] * 6
    expected = {text: served["fusion"].probabilities(None, text) for text in set(texts)}
    wrong = []

    def ask(text):
        if not np.allclose(served["fusion"].probabilities(None, text), expected[text]):
            wrong.append(text)

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no model at 'nowhere'"),
        (["--dataset", "nowhere"], "there is no data set at 'nowhere'"),
        (["--port", "99999"], "is no whole number from 1 to 65535"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    assert message in refused(capsys, app_script, *arguments)


def test_a_picture_upload_keeps_no_more_pixels_than_a_page_uses(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (3000, 1000), "red").save(content, "JPEG")
    path = tmp_path / "wide.jpg"
    path.write_bytes(content.getvalue())
    assert open_upload(str(path)).size == (2048, 683)
    assert json.dumps(markup.percent(0.5)) == '"50 %"'
