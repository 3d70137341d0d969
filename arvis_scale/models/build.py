"""An objective from its name, a preset and its options: the one place where derived sizes are worked out."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from arvis_scale.models.aim import Aim
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.mae import Mae
from arvis_scale.models.objective import Objective
from arvis_scale.models.options import AimOptions, DigptOptions, IgptOptions, MaeOptions, XtraOptions
from arvis_scale.models.presets import EncoderSize, encoder_size
from arvis_scale.models.xtra import Xtra

_CLASSES: dict[str, type[Objective]] = {"xtra": Xtra, "aim": Aim, "digpt": Digpt, "igpt": Igpt, "mae": Mae}
OBJECTIVES = tuple(_CLASSES)

Options = TypeVar("Options", XtraOptions, AimOptions, DigptOptions, IgptOptions, MaeOptions)


def build_objective(
    name: str,
    *,
    preset: str,
    image_size: int,
    patch_size: int,
    options: Mapping[str, Any] | None = None,
    teacher_width: int | None = None,
    teacher_grid: int | None = None,
) -> Objective:
    """Return objective `name` (xtra | aim | digpt | igpt | mae) around an encoder of size `preset`, freshly made.

    Arguments and errors are those of `objective_arguments`.
    """
    arguments = objective_arguments(
        name,
        preset=preset,
        image_size=image_size,
        patch_size=patch_size,
        options=options,
        teacher_width=teacher_width,
        teacher_grid=teacher_grid,
    )
    return _CLASSES[name](**arguments)


def objective_arguments(
    name: str,
    *,
    preset: str,
    image_size: int,
    patch_size: int,
    options: Mapping[str, Any] | None = None,
    teacher_width: int | None = None,
    teacher_grid: int | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments of objective `name`'s class, every derived size worked out.

    `image_size`, `patch_size`: pixels. `options`: fields of the objective's dataclass in `options`, defaults for the
    rest. `teacher_width`, `teacher_grid`: channels and tokens per side of the teacher, D-iGPT only. Raises `ValueError`
    for anything unknown, the class itself for what does not fit together.
    """
    size = encoder_size(preset)
    shape = {"size": size, "image_size": image_size, "patch_size": patch_size}
    values = dict(options or {})
    if name == "xtra":
        return {**shape, **_xtra_arguments(size, patch_size, _parse(XtraOptions, values, name))}
    if name == "aim":
        return {**shape, **_aim_arguments(size, _parse(AimOptions, values, name))}
    if name == "digpt":
        if teacher_width is None or teacher_grid is None:
            raise ValueError("objective 'digpt' predicts the tokens of a teacher; give teacher_width and teacher_grid")
        teacher = {"teacher_width": teacher_width, "teacher_grid": teacher_grid}
        return {**shape, **_digpt_arguments(size, _parse(DigptOptions, values, name)), **teacher}
    if name == "igpt":
        return {"size": size, "image_size": image_size, **dataclasses.asdict(_parse(IgptOptions, values, name))}
    if name == "mae":
        return {**shape, **_mae_arguments(size, _parse(MaeOptions, values, name))}
    raise ValueError(f"objective {name!r} is not known{_hint(name, OBJECTIVES)}; one of {', '.join(OBJECTIVES)}")


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _parse(kind: type[Options], values: Mapping[str, Any], name: str) -> Options:
    known = tuple(field.name for field in dataclasses.fields(kind))
    for key in values:
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}{_hint(key, known)}; its options are {', '.join(known)}")
    return kind(**values)


def _or(value: int | None, derived: int) -> int:
    """Return `value`, or the derived size where it was left open."""
    return derived if value is None else value


def _xtra_arguments(size: EncoderSize, patch_size: int, options: XtraOptions) -> dict[str, Any]:
    """Fill in XTRA's sizes; the rules give those of arXiv 2411.15648 at B/16, 256 px and H/14, 224 px."""
    side = options.block_side
    published_scale = size.width >= 768
    return {
        "block_side": side,
        "projection_hidden": _or(options.projection_hidden, max(4 * size.width, 4096 if published_scale else 0)),
        "predictor_width": _or(options.predictor_width, size.width if size.width <= 768 else size.width // 2),
        "predictor_depth": _or(options.predictor_depth, min(8, 2 * size.depth // 3)),
        "predictor_heads": _or(options.predictor_heads, max(1, size.num_heads // 2)),
        "head_hidden": _or(options.head_hidden, min(3 * (patch_size * side) ** 2, side**2 * size.width // 2)),
        "drop_path": options.drop_path,
        "blocks_ahead": options.blocks_ahead,
        "loss": options.loss,
        "block_orders": options.block_orders,
    }


def _aim_arguments(size: EncoderSize, options: AimOptions) -> dict[str, Any]:
    """Fill in AIM's sizes; the rules give those of arXiv 2401.08541 at its trunks and keep their proportions below."""
    return {
        "head_width": _or(options.head_width, min(2048, 8 * round(size.width / 6))),
        "head_depth": _or(options.head_depth, min(12, size.depth // 2)),
        "head_expansion": options.head_expansion,
    }


def _digpt_arguments(size: EncoderSize, options: DigptOptions) -> dict[str, Any]:
    """Fill in D-iGPT's decoder sizes; the rules give those of arXiv 2312.02147 from B up."""
    heads = _or(options.decoder_heads, max(1, min(32, round(size.width / 24))))
    return {
        "segment_side": options.segment_side,
        "decoders": options.decoders,
        "decoder_width": _or(options.decoder_width, 32 * heads),
        "decoder_depth": options.decoder_depth,
        "decoder_heads": heads,
    }


def _mae_arguments(size: EncoderSize, options: MaeOptions) -> dict[str, Any]:
    """Fill in MAE's decoder sizes; the rules give those of arXiv 2111.06377 from B up."""
    heads = _or(options.decoder_heads, max(1, min(16, round(size.width / 48))))
    return {
        "mask_ratio": options.mask_ratio,
        "decoder_width": _or(options.decoder_width, 32 * heads),
        "decoder_depth": _or(options.decoder_depth, min(8, 2 * size.depth // 3)),
        "decoder_heads": heads,
    }
