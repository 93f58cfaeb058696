"""The session of recording: what is saved never changes, and the last episode can be taken back."""

import pytest

from diffpolicy.teleop.session import Session, State


@pytest.fixture
def saved():
    return []


def session(saved, wanted=3, before=0):
    return Session[str](saved.append, wanted, before)


def run(one, episode, keep=True):
    """Start the next episode and end it."""
    one.go()
    assert one.state is State.RUNNING
    one.end(episode, keep)
    if one.count < one.wanted:
        one.go()
        assert one.state is State.READY


def test_the_last_episode_is_saved_when_the_next_starts(saved):
    one = session(saved)
    run(one, "a")
    assert (saved, one.count) == ([], 1)
    run(one, "b")
    assert (saved, one.count) == (["a"], 2)
    one.quit()
    assert (saved, one.count, one.state) == (["a", "b"], 2, State.DONE)


def test_undo_takes_back_the_last_one_only_and_keep_brings_it_again(saved):
    one = session(saved)
    run(one, "a")
    run(one, "b")
    one.undo()
    one.undo()
    assert (saved, one.count) == (["a"], 1)
    one.keep()
    assert one.count == 2
    one.undo()
    run(one, "c")
    one.quit()
    assert saved == ["a", "c"]


def test_an_episode_without_success_is_kept_on_request_only(saved):
    one = session(saved)
    run(one, "a", keep=False)
    run(one, "b", keep=False)
    one.keep()
    one.keep()
    one.quit()
    assert saved == ["b"]


def test_pause_and_discard(saved):
    one = session(saved)
    for command, state in (
        ("go", State.RUNNING),
        ("go", State.PAUSED),
        ("go", State.RUNNING),
        ("discard", State.READY),
        ("discard", State.READY),
        ("go", State.RUNNING),
        ("undo", State.RUNNING),
        ("keep", State.RUNNING),
        ("quit", State.DONE),
    ):
        getattr(one, command)()
        assert one.state is state
    assert saved == []


def test_nothing_starts_beyond_the_number_wanted_until_one_is_taken_back(saved):
    one = session(saved, wanted=2, before=1)
    run(one, "a")
    one.go()
    assert one.state is State.OVER and one.count == 2
    one.undo()
    one.go()
    assert one.state is State.READY
    run(one, "b")
    one.quit()
    one.quit()
    assert (saved, one.count) == (["b"], 2)
    full = session(saved, wanted=2, before=2)
    full.go()
    assert full.state is State.READY
