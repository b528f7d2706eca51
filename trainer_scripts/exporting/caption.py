"""Captions from exported graphs, in plain numpy: `python caption.py PICTURE [--num_beams 3]`.

This file stands beside `encoder.onnx` and `decoder.onnx` and needs numpy and onnxruntime; the command line also needs
Pillow and tokenizers. It is the reference for runtimes of other kinds: `encoder.onnx` runs once per picture,
`decoder.onnx` once per word, and `greedy` and `beams` choose the words as `generate` of transformers does.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Score of what must not be chosen, and of a beam that does not exist yet, as in transformers.
NEVER, NO_BEAM = -np.inf, np.float32(-1e9)
# From words so far `(rows, length)` and cache to the scores of the next word `(rows, words)` and the new cache.
Step = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Captioner:
    """The graphs of a folder.

    Args:
        folder: with `encoder.onnx`, `decoder.onnx` and `preprocessor.json`.
        session: makes a session of a file; None takes onnxruntime on the CPU.
    """

    def __init__(self, folder: str | Path, session: Callable[[Path], Any] | None = None):
        folder = Path(folder)
        self.settings = json.loads((folder / "preprocessor.json").read_text(encoding="utf-8"))
        session = session or _session
        self.encoder, self.decoder = session(folder / "encoder.onnx"), session(folder / "decoder.onnx")
        self._encoded = [node.name for node in self.encoder.get_outputs()]

    def encode(self, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the decoder reads of pictures, float32 `(batch, 3, height, width)`, by the name of the input."""
        return dict(zip(self._encoded, self.encoder.run(None, {"pixel_values": pixel_values}), strict=True))

    def step(
        self, ids: np.ndarray, cache: np.ndarray, pictures: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of the next word `(rows, words)` and the new cache.

        Args:
            ids: int64 `(rows, length)`, all words so far, the start token first; the cache knows all but the last.
            cache: float32 `(rows, ...)`, what earlier words left behind; `start_cache` before the first one.
            pictures: of each row, from `encode`.
        """
        # Encodings that this decoder does not read are left away by the exporter.
        read = {node.name for node in self.decoder.get_inputs()}
        given = {"input_ids": ids, "cache": cache, **pictures}
        logits, cache = self.decoder.run(None, {name: value for name, value in given.items() if name in read})
        return logits, cache

    def start_cache(self, rows: int) -> np.ndarray:
        """Return the cache before the first word."""
        return np.zeros((rows, *self.settings["decoder"]["cache"]), dtype=np.float32)

    def generate(self, pixel_values: np.ndarray, **settings: Any) -> list[list[int]]:
        """Return the words of each picture, without start and end token.

        Args:
            pixel_values: float32 `(batch, 3, height, width)`, prepared as `preprocessor.json` says.
            **settings: in place of those in `generation` of `preprocessor.json`, such as `num_beams=1` for greedy.
        """
        wanted, found = {**self.settings["generation"], **settings}, []
        encoded = self.encode(pixel_values)
        for row in range(len(pixel_values)):
            # One picture at a time, so that no caption depends on its neighbours.
            picture = {name: value[row : row + 1] for name, value in encoded.items()}

            def step(
                ids: np.ndarray, cache: np.ndarray, picture: dict[str, np.ndarray] = picture
            ) -> tuple[np.ndarray, np.ndarray]:
                return self.step(ids, cache, {name: value.repeat(len(ids), 0) for name, value in picture.items()})

            write = greedy if wanted["num_beams"] == 1 else beams
            found.append(write(step, self.start_cache(wanted["num_beams"]), wanted))
        return found


def greedy(step: Step, cache: np.ndarray, settings: dict[str, Any]) -> list[int]:
    """Return the likeliest word after the likeliest word, until the end token or `max_new_tokens`."""
    ids = np.array([[settings["decoder_start_token_id"]]])
    for _ in range(settings["max_new_tokens"]):
        scores, cache = step(ids, cache)
        word = int(allowed(scores, ids, settings).argmax())
        ids = np.append(ids, [[word]], axis=1)
        if word == settings["eos_token_id"]:
            break
    return without_end(ids[0], settings)


def beams(step: Step, cache: np.ndarray, settings: dict[str, Any]) -> list[int]:
    """Return the caption with the highest sum of log-probabilities over length to the power of `length_penalty`.

    The search of transformers: `num_beams` running captions, each step takes the best twice as many continuations;
    those of the better half that end are finished; it ends when no running one can still overtake the finished ones.
    """
    count, power, early = settings["num_beams"], settings["length_penalty"], settings["early_stopping"]
    ids = np.full((count, 1), settings["decoder_start_token_id"])
    # All beams begin alike, so that at first only one of them counts.
    running = np.where(np.arange(count) == 0, np.float32(0), NO_BEAM)
    finished: list[tuple[np.float32, np.ndarray]] = []
    for length in range(1, settings["max_new_tokens"] + 1):
        scores, cache = step(ids, cache)
        scores = allowed(log_softmax(scores), ids, settings) + running[:, None]
        order = np.argsort(-scores.reshape(-1), kind="stable")[: 2 * count]
        best, beam, word = scores.reshape(-1)[order], order // scores.shape[1], order % scores.shape[1]
        longer = np.concatenate([ids[beam], word[:, None]], axis=1)
        ends = (word == settings["eos_token_id"]) | (length == settings["max_new_tokens"])
        full = early is True and len(finished) >= count
        for place in np.flatnonzero(ends[:count]):
            if not full:
                finished.append((best[place] / np.float32(length) ** np.float32(power), longer[place]))
        finished = sorted(finished, key=lambda one: -one[0])[:count]
        kept = np.argsort(-np.where(ends, best + NO_BEAM, best), kind="stable")[:count]
        ids, running, cache = longer[kept], np.where(ends, best + NO_BEAM, best)[kept], cache[beam[kept]]
        if ends.all() or (early is True and len(finished) >= count):
            break
        longest = settings["max_new_tokens"] if early == "never" and power > 0 else length
        if len(finished) >= count and running[0] / np.float32(longest) ** np.float32(power) <= finished[-1][0]:
            break
    return without_end(finished[0][1], settings)


def allowed(scores: np.ndarray, ids: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Return the scores `(rows, words)` with those of words that must not follow `ids` `(rows, length)` at -inf."""
    scores = scores.astype(np.float32, copy=True)
    penalty, size = settings["repetition_penalty"], settings["no_repeat_ngram_size"]
    if penalty != 1:
        said = np.take_along_axis(scores, ids, axis=1)
        np.put_along_axis(scores, ids, np.where(said < 0, said * penalty, said / penalty), axis=1)
    if size:
        for row, words in enumerate(ids.tolist()):
            # What followed the same `size - 1` words before must not follow them again.
            last = words[len(words) - size + 1 :]
            for start in range(len(words) - size + 1):
                if words[start : start + size - 1] == last:
                    scores[row, words[start + size - 1]] = NEVER
    if ids.shape[1] < settings["min_length"]:
        scores[:, settings["eos_token_id"]] = NEVER
    scores[:, settings["suppress_tokens"]] = NEVER
    return scores


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return log-probabilities of scores `(rows, words)`."""
    shifted = scores.astype(np.float32) - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def without_end(ids: np.ndarray, settings: dict[str, Any]) -> list[int]:
    """Return the words between the start token and the end token."""
    words = [int(word) for word in ids[1:]]
    return words[: words.index(settings["eos_token_id"])] if settings["eos_token_id"] in words else words


def prepare(picture: Any, steps: dict[str, Any]) -> np.ndarray:
    """Return a Pillow image as `pixel_values` `(1, 3, height, width)`, by the steps of `preprocessor.json`."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    size, crop = steps["resize"], steps["center_crop"]
    width, height = size.get("width"), size.get("height")
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(picture.size)
        width, height = (max(size["shortest_edge"], int(side * scale)) for side in picture.size)
    method = getattr(Image.Resampling, steps["interpolation"].upper())
    picture = picture.resize((width, height), method)
    if crop is not None:
        left, top = (width - crop["width"]) // 2, (height - crop["height"]) // 2
        picture = picture.crop((left, top, left + crop["width"], top + crop["height"]))
    pixels = np.asarray(picture, dtype=np.float32) * np.float32(steps["multiply"])
    pixels = (pixels - np.float32(steps["subtract_mean"])) / np.float32(steps["divide_by_std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def as_sentence(text: str) -> str:
    """Return decoded words as written text: no space before punctuation, a capital at the start."""
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"(\w) ?(['’]) ?(s|t|re|ve|ll|d|m)\b", r"\1\2\3", text)
    text = re.sub(r"(\w) - (\w)", r"\1-\2", text)
    return text[:1].upper() + text[1:]


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the caption of a picture."""
    parser = argparse.ArgumentParser(description="Print the caption of a picture.")
    parser.add_argument("picture")
    parser.add_argument("--num_beams", type=int, help="1: greedy (default: the model's own)")
    given = parser.parse_args(arguments)
    from PIL import Image
    from tokenizers import Tokenizer

    folder = Path(__file__).resolve().parent
    captioner = Captioner(folder)
    pixels = prepare(Image.open(given.picture), captioner.settings["inputs"]["pixel_values"])
    settings = {} if given.num_beams is None else {"num_beams": given.num_beams}
    words = captioner.generate(pixels, **settings)[0]
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(words)
    sys.stdout.write(f"{as_sentence(text)}\n")


if __name__ == "__main__":
    main()
