"""What the bot changes of a request that it runs again by itself."""

from dataclasses import replace

from personas.schemas.training import Teacher, TrainingRequest

REMOVED = Teacher(model="big", url="https://gone.example/v1", licence="MIT")
TODAYS = Teacher(model="small", url="https://here.example/v1", licence="MIT")


async def test_a_request_that_runs_again_asks_neither_a_removed_teacher_nor_a_reader(stage):
    checks = replace(stage.client.services.trainings._checks, teacher=TODAYS)
    asked = {
        "job_name": "again",
        "persona": "ballast",
        "base_model": "embedded",
        "teacher": REMOVED,
    }
    again = checks.repeated(TrainingRequest(**asked, from_card=1, review=True))
    assert (again.teacher, again.review, again.from_card) == (TODAYS, None, 1)
    log = TrainingRequest(**asked | {"teacher": None}, dataset="history")
    assert checks.repeated(log) is log
