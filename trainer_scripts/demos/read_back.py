"""Uses the published data set and model as any user does: without our packages, in another folder, with a new cache.

The demo runs this file's text in a process where our packages cannot be imported.
"""

import torch
from datasets import load_dataset
from transformers import AutoModel, AutoProcessor


def main() -> None:
    """Load the data set, whole and streamed, then print the prediction of the model for one of its rows."""
    data = load_dataset("org/flavour-sd", revision="v1.0.0")
    print({split: rows.num_rows for split, rows in data.items()})
    streamed = next(iter(load_dataset("org/flavour-sd", revision="v1.0.0", streaming=True)["test"]))
    print("streamed:", streamed["id"], "|", streamed["title"])

    model = AutoModel.from_pretrained("org/flavour-fusion", revision="v1.0.0", trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained("org/flavour-fusion", revision="v1.0.0", trust_remote_code=True)
    row = data["test"][0]
    with torch.no_grad():
        logits = model(**processor(images=row["image"], text=row["title"], return_tensors="pt")).logits[0]
    for index, share in enumerate(logits.softmax(-1).tolist()):
        print(f"  {model.config.id2label[index]:7s} {share:.3f}")
    print(repr(row["title"]), "is labelled", data["test"].features["flavour"].int2str(row["flavour"]))


if __name__ == "__main__":
    main()
