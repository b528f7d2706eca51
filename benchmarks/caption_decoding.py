"""Cached against uncached beam decoding of both captioners: `python benchmarks/caption_decoding.py`.

Fresh weights of the full-size decoders, 8 pictures, 4 beams, exactly 20 new tokens, median of some rounds taken in
turns. The pictures are encoded before the clock starts: that happens once either way.
"""

from functools import partial

import torch
from measuring import Row, arguments_of, in_turns, milliseconds, ratios, report

from modeling_flavour.modeling_flavour_captioning import FlavourForMergeCaptioning, FlavourForTransformerCaptioning

PICTURES, BEAMS, TOKENS, VOCABULARY = 8, 4, 20, 8000
SETTINGS = {"num_beams": BEAMS, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}


def main():
    given = arguments_of(__doc__)
    torch.manual_seed(0)
    pictures = torch.randn(PICTURES, 3, 224, 224)
    print(f"{torch.get_num_threads()} threads, {PICTURES} pictures, {BEAMS} beams, {TOKENS} tokens")
    rows = []
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

        def generate(use_cache, model=model, encoded=encoded):
            model.generate(encoder_outputs=encoded.of(), use_cache=use_cache, **SETTINGS)

        ways = {"cached": partial(generate, True), "uncached": partial(generate, False)}
        found = in_turns(ways, given.rounds, given.clock)
        width = f", {sizes['num_hidden_layers']} layers of {sizes['hidden_size']}" if sizes else ""
        rows.append(
            Row(
                f"cached beam decoding, {captioner.__name__}{width}: {milliseconds(found['cached'])}",
                f"uncached: {milliseconds(found['uncached'])}",
                ratios(found["uncached"], found["cached"]),
                3,
            )
        )
    report(rows, given)


if __name__ == "__main__":
    main()
