"""The teacher: a large model whose answers the generator is trained to give (paper, section 4)."""

from scaledown.data.pipeline.teacher.loading import load_teacher
from scaledown.data.pipeline.teacher.teacher_config import Question, Teacher, TeacherConfig

__all__ = ["Question", "Teacher", "TeacherConfig", "load_teacher"]
