"""Frozen models whose tokens D-iGPT predicts (arXiv 2312.02147): one small interface, four kinds.

Their weights lie on this machine, from `arvis-scale weights fetch`, `weights train-vq` or `weights train-clip`.
"""

from arvis_scale.models.teachers.choice import load_teacher, teacher_shape
from arvis_scale.models.teachers.open_clip_teacher import OpenClipTeacher, from_open_clip
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape

__all__ = ["OpenClipTeacher", "Teacher", "TeacherShape", "from_open_clip", "load_teacher", "teacher_shape"]
