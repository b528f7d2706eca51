"""Cached against uncached beam decoding of both captioners: `python benchmarks/caption_decoding.py`.

Fresh weights of the full-size decoders, 8 pictures, 4 beams, exactly 20 new tokens, median of some rounds taken in
turns. The pictures are encoded before the clock starts: that happens once either way.
"""

import argparse
import statistics
import time

import torch

from modeling_flavour.captioning_flavour import FlavourForMergeCaptioning, FlavourForTransformerCaptioning

PICTURES, BEAMS, TOKENS, VOCABULARY = 8, 4, 20, 8000
SETTINGS = {"num_beams": BEAMS, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}


def seconds(model, encoded, use_cache):
    start = time.perf_counter()
    model.generate(encoder_outputs=encoded.of(), use_cache=use_cache, **SETTINGS)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    pictures = torch.randn(PICTURES, 3, 224, 224)
    print(f"{torch.get_num_threads()} threads, {PICTURES} pictures, {BEAMS} beams, {TOKENS} tokens")
    for captioner, sizes in (
        (FlavourForTransformerCaptioning, {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}),
        (FlavourForTransformerCaptioning, {"hidden_size": 256, "num_hidden_layers": 3}),
        (FlavourForMergeCaptioning, {}),
    ):
        model = captioner.from_parts(
            image={"model_type": "timm_wrapper", "architecture": "resnet10t"}, vocab_size=VOCABULARY, **sizes
        ).eval()
        with torch.no_grad():
            encoded = model.get_encoder()(pictures)
        times = {True: [], False: []}
        for use_cache in (True, False):
            seconds(model, encoded, use_cache)
        for _ in range(rounds):
            for use_cache, found in times.items():
                found.append(seconds(model, encoded, use_cache))
        cached, plain = (statistics.median(times[use_cache]) for use_cache in (True, False))
        print(
            f"{captioner.__name__} {sizes or ''}: cached {cached:.2f} s, uncached {plain:.2f} s, "
            f"{plain / cached:.1f} times faster"
        )


if __name__ == "__main__":
    main()
