"""Pictures and masks of rows: read, absent, or refused aloud."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset_builder.errors import BadInputError
from trainer_scripts.data.row_index import mask_of, picture_of


def test_a_broken_picture_or_mask_is_said_and_an_absent_one_is_none():
    stream = io.BytesIO()
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(ids).save(stream, "PNG")
    stored = {"bytes": stream.getvalue()}
    assert np.array_equal(mask_of(stored), ids)
    assert picture_of(stored).size == (4, 3)
    for read, kind in ((mask_of, "mask"), (picture_of, "picture")):
        assert read(None) is None
        with pytest.raises(BadInputError, match=f"the {kind} cannot be read"):
            read({"bytes": b"junk"})
