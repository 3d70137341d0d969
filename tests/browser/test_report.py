"""The report in a real browser: it shows its figures without a network, and prints to pages."""

import shutil
import subprocess

import pytest

from scaling_studies import commands
from scaling_studies.example import SHARES, example_points
from scaling_studies.points import points_table, write_points

SECONDS = 120  # what a loaded machine may take


def run_row(row, number):
    value = row["error"]
    return {
        "name": f"{row['objective']}-{number}",
        "kind": "trained",
        "objective": row["objective"],
        "preset": f"p{row['params'] / 1e6:.0f}m",
        "params_encoder": int(row["params"]),
        "params_total": int(2 * row["params"]),
        "unique_images": int(row["samples_seen"]),
        "samples_seen": int(row["samples_seen"]),
        "train_flops": row["flops"],
        "metric": "linear_probe_error",
        "value": value,
        "value_low": value - 0.004,
        "value_high": value + 0.004,
        "num_test": 50_000,
        "seed": 0,
        "probe_data": "simulated",
        "wall_seconds": 1.0,
        "device_seconds": 1.0,
        "world_size": 1,
        "status": "completed",
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    study = tmp_path_factory.mktemp("study")
    rows = [run_row(row, number) for number, row in enumerate(example_points().to_dict("records"))]
    write_points(study / "points.csv", points_table(rows))
    commands.fit(study)
    return commands.report(study)


def chromium(report, profile, *options):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", f"--user-data-dir={profile}", "--window-size=1200,3000"]
    command = [program, *flags, *options, f"file://{report}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout


@pytest.mark.browser
def test_every_figure_of_the_page_is_shown(report, tmp_path):
    # Asked inside the page: an image that could not be read has no width.
    script = "<script>document.title = [...document.images].map(i => i.naturalWidth > 100).join()</script>"
    page = tmp_path / "page.html"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    title = chromium(page, tmp_path / "profile", "--dump-dom").partition("<title>")[2].partition("</title>")[0]
    shown = title.split(",")
    assert len(shown) >= 6
    assert set(shown) == {"true"}
    assert {"xtra", "aim"} == set(SHARES)


@pytest.mark.browser
def test_on_a_phone_only_figures_and_tables_are_scrolled_sideways(report, tmp_path):
    script = """<script>document.title = [window.innerWidth, document.documentElement.scrollWidth,
        Math.min(...[...document.images].map(i => i.getBoundingClientRect().width))].join()</script>"""
    page = tmp_path / "page.html"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    dom = chromium(page, tmp_path / "profile", "--window-size=420,900", "--dump-dom")
    shown, needed, narrowest = map(float, dom.partition("<title>")[2].partition("</title>")[0].split(","))
    assert needed <= shown <= 500
    assert narrowest >= 0.8 * shown


@pytest.mark.browser
def test_it_prints_to_pages(report, tmp_path):
    pdf = tmp_path / "report.pdf"
    chromium(report, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") + content.count(b"/Type/Page/") <= 30
