"""A teacher by its settings: a local model, or a server."""

from __future__ import annotations

from scaledown.data.pipeline.teacher.teacher_config import Teacher, TeacherConfig


def load_teacher(config: TeacherConfig) -> Teacher:
    """Load the local model, or find out that the server answers.

    Raises:
        ValueError: where the model cannot be had or read, or the server does not answer as expected.
    """
    if config.teacher_url is not None:
        from scaledown.data.pipeline.teacher.server import ServerTeacher

        return ServerTeacher(config)
    from scaledown.data.pipeline.teacher.local import LocalTeacher

    return LocalTeacher(config)
