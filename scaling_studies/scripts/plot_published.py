"""Published accuracies as errors over parameters and unique images, with the claimed ratios and their caveats.

    python -m scaling_studies.scripts.plot_published

It prints what stands under the figure, and its files:

    XTRA ViT-H/14 against AIM-0.6B, 152x fewer images. Unique images, not samples seen: those are about 1.31B
    against 2B, 1.5 times fewer. The two sets differ (IN-21K against web images of DFN), the two accuracies are not
    equal, and the 76.2 is from a secondary source.
    figures/published.png
    figures/published.svg
    figures/published.pdf
    figures/published.json
"""

from __future__ import annotations

from scaling_studies.figures.published_results import published_results
from scaling_studies.scripts.table_argument import write

BENCHMARK = "avg of 15 benchmarks (AIM suite)"  # or "ImageNet-1K"
PROTOCOL = "attentive"  # or "linear", "finetune"
FIGURE = "figures/published"


def main() -> None:
    drawing = published_results(benchmark=BENCHMARK, protocol=PROTOCOL)
    write(drawing, FIGURE)


if __name__ == "__main__":
    main()
