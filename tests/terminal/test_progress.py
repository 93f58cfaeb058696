"""The one line of progress: it moves with ticks, whole at the end, and is absent in quiet mode."""

import logging

import pytest

from diffpolicy.terminal.progress import EpisodeBar, progress_bar


def shown(capsys) -> list[str]:
    """The states of the line."""
    return [line.strip() for line in capsys.readouterr().err.split("\r") if line.strip()]


def test_the_line_moves_while_no_episode_has_ended(capsys):
    with EpisodeBar("sweep", 4, 300, leave=True) as bar:
        bar.describe("1 step, paused")
        bar.advance(600, 0)
        bar._bar.refresh()
        bar.advance(600, 4)
    lines = shown(capsys)
    assert any("50%" in line and "0/4 episodes" in line for line in lines)
    assert lines[-1].startswith("1 step, paused: 100%|") and "4/4 episodes" in lines[-1]
    assert "tick/s" in lines[-1]


def test_episodes_of_before_count_but_are_no_speed(capsys):
    with EpisodeBar("sweep", 4, 300, leave=True) as bar:
        bar.skip(2)
        facts = bar._bar.format_dict
        assert (facts["n"], facts["initial"], facts["total"]) == (600, 600, 1200)
    assert "2/4 episodes" in shown(capsys)[-1]


def test_restarted_episodes_do_not_pass_the_end():
    with EpisodeBar("sweep", 1, 10) as bar:
        bar.advance(8, 0)
        bar.advance(10, 1)
        assert (bar._bar.n, bar._bar.total) == (18, 18)


def test_a_quiet_command_shows_no_line(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffpolicy"), "level", logging.WARNING)
    with EpisodeBar("sweep", 4, 300) as bar:
        bar.describe("1 step")
        bar.skip(1)
        bar.advance(900, 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("limit", [None, 300])
def test_the_line_is_known_as_progress(capsys, limit):
    from conftest import PROGRESS

    with EpisodeBar("sweep", 4, limit, leave=True) as bar:
        bar.advance(300, 1)
    assert all(PROGRESS.search(line) for line in shown(capsys))


def test_the_variable_of_tqdm_hides_every_bar(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with EpisodeBar("sweep", 1, 10, leave=True) as bar, progress_bar(total=3) as other:
        bar.advance(10, 1)
        other.update(3)
    assert not shown(capsys)
