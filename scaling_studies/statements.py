"""Results in words and numbers as a reader wants them: method names, counts, ratios with their uncertainty."""

from __future__ import annotations

import math
from typing import Any

METHOD_NAMES = {"xtra": "XTRA", "digpt": "D-iGPT", "aim": "AIM", "igpt": "iGPT", "mae": "MAE"}
METRIC_NAMES = {
    "linear_probe_error": "linear-probe error",
    "attentive_probe_error": "attentive-probe error",
    "knn_probe_error": "kNN-probe error",
}
UNITS = {
    "unique_images": "unique images",
    "samples_seen": "samples seen",
    "params_encoder": "encoder parameters",
    "compute": "training FLOPs",
}


def method_name(objective: str) -> str:
    """The name of a method as its paper writes it."""
    return METHOD_NAMES.get(objective, objective)


def method_order(objective: str) -> tuple[int, str]:
    """Sort key that puts the methods in one order everywhere: ours first, then its rivals, then any others.

    Variants (`XTRA-k2`) stand with the method that they are named after.
    """
    name = method_name(objective).casefold()
    matches = (place for place, known in enumerate(METHOD_NAMES.values()) if name.startswith(known.casefold()))
    return (next(matches, len(METHOD_NAMES)), objective)


def count(number: float) -> str:
    """A count in at most three digits and a unit: 1437 -> 1.44k, 85843200 -> 85.8M; from 1e15 on with an exponent."""
    if number < 999.5:
        return f"{number:.3g}"
    if number >= 999.5e12:
        return f"{number:.3g}"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{_three_digits(number / size)}{unit}"
    raise AssertionError(number)


def percent(fraction: float) -> str:
    """A fraction in per cent with one decimal."""
    return f"{100 * fraction:.1f}%"


def times(ratio: float) -> str:
    """A ratio to two significant digits, three above 10: 2.1x, 0.48x, 152x."""
    return f"{_two_digits(ratio)}x"


def ratio_interval(low: float | None, high: float | None) -> str:
    """The 95% interval of a ratio; `None` (or 0 and inf) is an open end."""
    low, high = low or None, None if high is None or math.isinf(high) else high
    if low is None and high is None:
        return "95% interval open at both ends: not determined by these points"
    if low is None:
        return f"95% interval: at most {times(high)}" if high is not None else ""
    if high is None:
        return f"95% interval: at least {times(low)}"
    return f"95% interval {times(low)} to {times(high)}"


def is_determined(row: dict[str, Any]) -> bool:
    """Whether the ratio of an efficiency row was measured and its interval ends somewhere."""
    return row["status"] == "measured" and not (row["low"] is None and row["high"] is None)


def efficiency_statement(row: dict[str, Any], metric: str = "linear_probe_error") -> str:
    """One row of the efficiency table of fits.json, whose errors are of `metric`, as a sentence."""
    first, second = method_name(row["method_1"]), method_name(row["method_2"])
    unit = UNITS[row["x"]]
    if row["status"] != "measured":
        return f"{first} against {second} in {unit}{_setting(row)}: {row['reason']}.{_notes(row)}"
    article = "an" if METRIC_NAMES[metric].startswith("a") else "a"
    at = f"At {article} {METRIC_NAMES[metric]} of {percent(row['quality'])} ({_where(row['at'])}){_setting(row)}"
    return f"{at}, {ratio_sentence(first, second, unit, row)}{_notes(row)}"


def ratio_sentence(first: str, second: str, unit: str, row: dict[str, Any]) -> str:
    """What `first` needs where `second` needs more or less, the ratio and its interval; `row` as in `Efficiency`."""
    needs = f"{first} needs {count(row['x_1'])} {unit} where {second} needs {count(row['x_2'])}"
    sentence = f"{needs}: {times(row['ratio'])} as efficient ({ratio_interval(row['low'], row['high'])})."
    outside = [
        f"{percent(row[key])} of {name}'s"
        for name, key in ((first, "outside_1"), (second, "outside_2"))
        if row[key] >= 0.005
    ]
    if outside:
        sentence += f" {' and '.join(outside)} bootstrap curves do not pass this quality within the data."
    beyond = max(row.get("beyond_1", 1.0), row.get("beyond_2", 1.0))
    if beyond > 1 + 1e-9:
        sentence += f" Extrapolated: {beyond:.3g} times beyond the data."
    return sentence


def difference_statement(row: dict[str, Any]) -> str:
    """One row of the differences or compute_differences of fits.json as a sentence; errors in points of a per cent."""
    first, second = method_name(row["method_1"]), method_name(row["method_2"])
    parts = []
    if len(row["by_preset"]) > 1:
        parts.append(", ".join(f"{preset} {100 * value:+.1f}" for preset, value in row["by_preset"].items()))
    for name, what in (("seed", "seeds"), ("size", "encoder sizes")):
        if row[f"{name}_low"] is not None:
            ends = f"{100 * row[f'{name}_low']:+.1f} to {100 * row[f'{name}_high']:+.1f}"
            parts.append(f"95% interval over {what} {ends}")
    if all(row[end] is None for end in ("seed_low", "size_low")):
        parts.append("no interval")
    known = "; ".join(parts)
    over, what = "", "settings"
    if "flops_low" in row:
        over, what = f" over {count(row['flops_low'])} to {count(row['flops_high'])} FLOPs", "pairs of curves"
    lower = f"{first} is lower in {row['num_lower']} of {row['num_settings']} {what}"
    return f"{first} minus {second}{over}: {100 * row['difference']:+.1f} points ({known}); {lower}."


def prediction_statement(row: dict[str, Any]) -> str:
    """One row of the predictions of fits.json as a sentence."""
    who, quality = f"{method_name(row['objective'])}{_setting(row)}", percent(row["quality"])
    places = [f"{count(value)} {UNITS.get(name, name)}" for name, value in row["at"].items()]
    if row["kind"] == "needed":
        ends = [end if end is None else count(end) for end in (row["low"], row["high"])]
        sentence = f"{who} needs {places[0]} for an error of {quality} ({_ends(*ends)})"
    else:
        ends = [end if end is None else percent(end) for end in (row["low"], row["high"])]
        if row["kind"] == "cheapest":
            sentence = f"{places[0]} are best spent by {who} on {' and '.join(places[1:])}: an error of {quality}"
        else:
            sentence = f"{who} would reach an error of {quality} with {' and '.join(places)}"
        sentence += f" ({_ends(*ends)})"
    return f"{sentence}." if row["warning"] is None else f"{sentence}; {row['warning']}."


def _ends(low: str | None, high: str | None) -> str:
    if low is None or high is None:
        return "95% interval " + (f"at least {low}" if low else f"at most {high}" if high else "open at both ends")
    return f"95% interval {low} to {high}"


def _notes(row: dict[str, Any]) -> str:
    """What is not equal between the two methods although it should be."""
    return f" Not a like-for-like comparison: {'; '.join(row['notes'])}." if row["notes"] else ""


def _where(at: str) -> str:
    return {"lowest": "the lowest that both reach within their data", "middle": "midway in what both measured"}[at]


def _setting(row: dict[str, Any]) -> str:
    return f" with the {row['preset']} encoder" if row["preset"] else ""


def _three_digits(number: float) -> str:
    """Three significant digits without an exponent; 999.6 is 1000, not 1e+03."""
    digits = max(0, 2 - math.floor(math.log10(number)))
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _two_digits(number: float) -> str:
    if number == 0:
        return "0"
    if number >= 9.95:
        return f"{number:.0f}"
    return f"{number:.{max(0, 1 - math.floor(math.log10(number)))}f}"
