"""The command on a virtual screen with real keys, and its errors without one."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("pygame", reason="pygame is not installed")
LIMIT_S = 120  # a machine this slow is broken

needs_screen = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")),
    reason="no virtual screen: Xvfb and xdotool are not installed",
)


@pytest.fixture
def screen():
    """The name of a virtual screen."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1024x1024x24"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as opened:
            number = opened.readline().strip()
        yield f":{number}"
        server.terminate()


class Person:
    """A person before the screen: reads the terminal, and presses keys."""

    def __init__(self, screen: str, *options: object):
        command = [sys.executable, "-m", "diffpolicy", "play", *map(str, options)]
        self.screen = {**os.environ, "DISPLAY": screen, "PYTHONUNBUFFERED": "1"}
        self.screen.pop("SDL_VIDEODRIVER", None)
        self.out, streams = "", {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.program = subprocess.Popen(command, env=self.screen, text=True, **streams)
        self.end_s = time.monotonic() + LIMIT_S

    def read_until(self, text: str) -> None:
        assert self.program.stdout
        while text not in self.out:
            line = self.program.stdout.readline()
            assert line and time.monotonic() < self.end_s, self.out
            self.out += line

    def press(self, *keys: str) -> None:
        subprocess.run(["xdotool", "key", *keys], env=self.screen, check=True)


@needs_screen
def test_real_keys_change_the_steps_and_the_delay_and_quit(screen, tiny_run):
    """Balance-v0 renders by OpenGL beside the window, which once ended the process."""
    options = ("--ddim-steps", 1, 2, 4, "--engine", "eager", "--max-steps", 6)
    person = Person(screen, "--run", tiny_run, *options)
    try:
        person.read_until("SPACE pause")
        person.read_until("1 step, delay 0 ticks")
        person.press("plus", "plus", "minus", "d", "d", "D")
        person.read_until("2 steps, delay 1 tick: ")
        person.press("BackSpace", "KP_Add")
        person.read_until("4 steps, delay 0 ticks: ")
        person.press("Escape")
        out, _ = person.program.communicate(timeout=LIMIT_S)
    finally:
        person.program.kill()
    assert person.program.returncode == 0, out
    assert "2 steps, delay 1 tick: 0/" in out and "successes" in out


@pytest.mark.parametrize("display", [None, ":971"])
def test_without_a_screen_it_says_what_to_do(display, refused, monkeypatch, tmp_path):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    line = refused("play", "--run", tmp_path)
    assert "play cannot open a window" in line and "export DISPLAY" in line
    assert "diffpolicy eval --video" in line


def test_the_keys_of_the_help_are_commands_of_the_game(monkeypatch):
    """Events of the dummy driver: shift-D is another key than D, whatever their `unicode` says."""
    from diffpolicy.eval.play import KEYS
    from diffpolicy.play.game import Game
    from diffpolicy.teleop.window import Window

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    window = Window("x", np.zeros((24, 24, 3), np.uint8), 3, KEYS, "play")
    try:
        pressed = [
            ("d", pygame.K_d, 0),
            ("D", pygame.K_d, pygame.KMOD_LSHIFT),
            ("D", pygame.K_d, 0),  # as pygame tells of d and shift-D pressed within a frame
            ("d", pygame.K_d, pygame.KMOD_LSHIFT),
            ("+", pygame.K_EQUALS, pygame.KMOD_LSHIFT),
            ("", pygame.K_ESCAPE, 0),
        ]
        for character, key, mod in [*pressed, ("x", pygame.K_x, 0), ("", pygame.K_UP, 0)]:
            about = {"key": key, "unicode": character, "mod": mod}
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, about))
        assert window.commands() == ["later", "sooner", "later", "sooner", "more", "quit"]
        window.draw(np.zeros((24, 24, 3), np.uint8), ["a\tb\tc", "d"])
    finally:
        window.close()
    assert all(callable(getattr(Game, command)) for command in KEYS.values())
