"""Loading a teacher by its settings: a local model, or a server."""

from __future__ import annotations

from scaledown.data.pipeline.teacher.teacher_config import Teacher, TeacherConfig


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
