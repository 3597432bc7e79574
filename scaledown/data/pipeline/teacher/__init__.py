"""The teacher: a large model whose answers the generator is trained to give (paper, section 4)."""

from __future__ import annotations

from scaledown.data.pipeline.teacher.teacher import TEACHER_ADVICE, Teacher, TeacherConfig, TeacherQuestion

__all__ = ["TEACHER_ADVICE", "Teacher", "TeacherConfig", "TeacherQuestion", "load_teacher"]


def load_teacher(config: TeacherConfig) -> Teacher:
    """Load the local model, or check that the server answers.

    Raises:
        ValueError: if the model cannot be found or read, or the server does not answer as expected.
    """
    # Imported on demand: a server needs no torch, and a local model no HTTP client.
    if config.teacher_url is not None:
        from scaledown.data.pipeline.teacher.server import ServerTeacher

        return ServerTeacher(config)
    from scaledown.data.pipeline.teacher.local import LocalTeacher

    return LocalTeacher(config)
