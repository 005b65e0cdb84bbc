"""The log of what members saw: counted from the start, forgotten from the old end."""

from sandbox.traffic_log import EventLog


def test_marks_stay_true_when_old_events_are_forgotten():
    log = EventLog(kept=10)
    for number in range(25):
        log.append(("edit", {"number": number}))
    assert len(log) == 25 and len(list(log)) <= 10
    assert [data["number"] for _, data in log[22:]] == [22, 23, 24]
    assert log[25:] == []
    assert [data["number"] for _, data in log[0:]][-1] == 24
