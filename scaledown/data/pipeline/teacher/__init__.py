"""The teacher: a large model whose answers the generator is trained to give (paper, section 4)."""

from scaledown.data.pipeline.teacher.teacher import (
    TEACHER_ADVICE,
    Teacher,
    TeacherConfig,
    TeacherQuestion,
    load_teacher,
)

__all__ = ["TEACHER_ADVICE", "Teacher", "TeacherConfig", "TeacherQuestion", "load_teacher"]
