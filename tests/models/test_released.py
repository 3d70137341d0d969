"""Import of the released implementations' weights."""

from __future__ import annotations

import pytest
import torch

from arvis_scale.models.released import from_released, our_names


def test_digpt_decoders_are_crossed_back() -> None:
    names = our_names("digpt", ["ar_token", "kd_enc2dec.weight", "kd_enc_norm.3.bias", "ar_enc2dec.weight", "mask"])
    assert names == {
        "ar_token": "decoders.generative.query_token",
        "kd_enc2dec.weight": "decoders.generative.tap_proj.weight",
        "kd_enc_norm.3.bias": "decoders.generative.tap_norm.bias",
        "ar_enc2dec.weight": "decoders.discriminative.tap_proj.weight",
    }


def test_copies_of_the_shared_norm_that_differ_are_refused() -> None:
    state = {"ar_enc_norm.0.weight": torch.ones(4), "ar_enc_norm.1.weight": torch.zeros(4)}
    with pytest.raises(ValueError, match=r"'ar_enc_norm.1.weight' differs from the other copies"):
        from_released("digpt", state)


@pytest.mark.parametrize(("objective", "name"), [("xtra", "enc_norm.weight"), ("digpt", "enc.norm.weight")])
def test_a_name_of_another_model_is_refused(objective: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no parameter of the released {objective}"):
        our_names(objective, [name])
