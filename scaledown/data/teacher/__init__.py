"""The teacher: a large model whose answers the generator is trained to give (paper, section 4)."""

from scaledown.data.teacher.config import Question, Teacher, TeacherConfig
from scaledown.data.teacher.loading import load_teacher

__all__ = ["Question", "Teacher", "TeacherConfig", "load_teacher"]
