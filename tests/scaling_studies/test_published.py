"""Published results: every row has its source, claims have their caveats and follow from their own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaling_studies.figures.published_results import published_results
from scaling_studies.published import load_claims, load_published


def test_every_row_has_a_source_and_says_how_it_was_read() -> None:
    table = load_published()
    assert len(table) > 150
    assert table["source"].str.len().min() > 10
    assert set(table["evidence"]) == {"primary", "secondary"}
    errors = table["error"].dropna()
    assert errors.between(0, 1).all()


def test_units_are_images_and_parameters_and_known_methods_have_our_names() -> None:
    table = load_published("ImageNet-1K", "attentive")
    (row,) = table[(table["method"] == "XTRA") & (table["architecture"] == "ViT-H/14")].to_dict("records")
    assert (row["params"], row["unique_images"], row["samples_seen"]) == (631e6, 13.1e6, 1310e6)
    assert row["error"] == pytest.approx(0.191)
    assert row["objective"] == "xtra"
    assert set(table[table["method"].str.startswith("AIM")]["objective"]) == {"aim"}
    assert table[table["method"] == "DINO"]["objective"].isna().all()
    assert set(table[table["pretrain_dataset"] == "IN-1K"]["unique_images"].dropna()) <= {1_281_167, 1_280_000}


def test_an_unknown_benchmark_is_named() -> None:
    with pytest.raises(ValueError, match="benchmark 'ImageNet' is none of ADE20K"):
        load_published("ImageNet")


def test_claims_carry_a_caveat_and_their_ratio_follows_from_their_numbers() -> None:
    claims = load_claims()
    assert {13.1e6, 85e6} == set(claims["x_1"])
    assert {2e9, 1.36e9, 0.63e9} == set(claims["x_2"])
    assert claims["caveat"].str.len().min() > 40
    assert (claims["ratio"] / (claims["x_2"] / claims["x_1"])).between(0.98, 1.02).all()


def test_the_figure_shows_a_claim_with_its_caveat_in_the_picture(tmp_path: Path) -> None:
    drawing = published_results(benchmark="avg of 15 benchmarks (AIM suite)")
    shown = " ".join(drawing.figure._supxlabel.get_text().split())
    assert "Unique images, not samples seen" in shown
    document = json.loads(drawing.save(tmp_path / "published")[-1].read_text())
    assert [claim["ratio"] for claim in document["claims"]] == [152]
    assert len(document["panels"]) == 2
