"""The teacher: a large model whose answers the generator learns to say (paper, section 4)."""

from scaledown.data.pipeline.teacher.loading import load_teacher
from scaledown.data.pipeline.teacher.teacher_config import Question, Teacher, TeacherConfig

__all__ = ["Question", "Teacher", "TeacherConfig", "load_teacher"]
