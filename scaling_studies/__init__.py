"""Scaling curves of vision pretraining: from points to fitted laws, efficiency ratios, figures and one report.

Read in this order: `points` (the table), `collect` (run folders -> points), `laws`, `fitting` (a law on one curve),
`efficiency` (two fitted curves compared), `curves` and `study` (a whole study folder), `figures`, `report`, and
`commands` (what `arvis-scale study ...` calls). The package needs no training code and no GPU library.
"""
