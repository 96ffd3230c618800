"""The recipe generates the weights with which the golden arrays were computed."""

import json

import numpy as np

from official.recipe import DATA, official_shapes, recipe_value


def test_first_values_of_every_hundredth_tensor_of_the_full_size_unet() -> None:
    shapes = official_shapes("unet_stage2")
    firsts = json.loads((DATA / "fillcheck_unet_stage2.json").read_text())
    drawn = {name: first for name, first in firsts.items() if not name.endswith(".pe")}
    assert len(drawn) >= 10
    for name, first in drawn.items():
        np.testing.assert_array_equal(
            recipe_value(name, shapes[name]).flatten()[:4], np.float32(first), err_msg=name
        )
