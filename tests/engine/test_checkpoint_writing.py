"""What a checkpoint's files hold: copies of what was there, hashed as they are written."""

from collections import OrderedDict

import torch

from arvis_scale.engine.checkpointing.manifest import describe
from arvis_scale.engine.checkpointing.writing import copy_to_host, write_tensors


def test_a_copy_does_not_follow_its_original():
    tensor = torch.zeros(4)
    value = {"groups": [tensor, (tensor[:2], 3)], "names": OrderedDict(b=tensor)}
    copied = copy_to_host(value)
    tensor += 1
    for one in (copied["groups"][0], copied["groups"][1][0], copied["names"]["b"]):
        assert not one.any()


def test_a_copy_has_the_types_of_its_original():
    """DeepSpeed's `zero_to_fp32` asks the shapes in a checkpoint how many elements they have."""
    copied = copy_to_host({"shapes": OrderedDict(weight=torch.Size([2, 3])), "group": (1, [2])})
    assert type(copied["shapes"]) is OrderedDict
    assert copied["shapes"]["weight"].numel() == 6
    assert copied["group"] == (1, [2])


def test_a_copied_view_leaves_behind_what_it_is_a_view_of():
    assert copy_to_host(torch.zeros(1000)[::500]).untyped_storage().nbytes() == 2 * 4


def test_a_file_is_what_the_hash_taken_while_writing_says(tmp_path):
    value = {"large": torch.randn(100_000), "strided": torch.randn(8, 8).T, "step": 3}
    assert write_tensors(value, tmp_path / "file.pt") == describe(tmp_path / "file.pt")
    read = torch.load(tmp_path / "file.pt", weights_only=True)
    assert torch.equal(read["large"], value["large"]) and torch.equal(read["strided"], value["strided"])
