"""Window of pygame: the environment's picture, lines of text, and commands from keys and mouse."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.teleop.devices import DIRECTIONS, from_keys, from_mouse

SMALLEST_PX = 480  # shorter side of a picture that is not enlarged further
LINE_PX, MARGIN_PX, TEXT_PX = 22, 8, 18
NAME_PX, COLUMN_PX = 200, 56  # of the first and of the other columns of a line with tabs
UNSEEN = ("offscreen", "dummy")  # SDL's drivers that show nothing
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # one of them names a display
DARK, LIGHT, MARK = (24, 26, 31), (232, 234, 237), (235, 64, 52)


class Window:
    """A window for pictures of one size; cursor [2] is moved by the mouse and by arrow keys.

    picture: the first one, uint8 [H, W, 3]. lines: of text below it. keys: commands by the
    character, or else the name, of a key. least_px: of the width. Raises DiffpolicyError without
    pygame or a screen; wanted_by: the option or command that it names, instead: what else would do.
    """

    def __init__(
        self,
        title: str,
        picture: np.ndarray,
        lines: int,
        keys: Mapping[str, str],
        wanted_by: str,
        instead: str = "",
        least_px: int = 0,
    ):
        self._pygame, self._keys = check_display(wanted_by, instead), keys
        self.cursor, self._arrows = np.array([0.5, 0.5]), set[str]()
        height, width = picture.shape[:2]
        scale = max(1, round(SMALLEST_PX / min(height, width)))
        self._size = width * scale, height * scale
        whole = max(self._size[0], least_px)
        self._left = (whole - self._size[0]) // 2
        self._pygame.font.init()
        try:
            bar = 2 * MARGIN_PX + LINE_PX * lines
            self._screen = self._pygame.display.set_mode((whole, self._size[1] + bar))
        except self._pygame.error as error:
            raise _unseen(self._pygame, wanted_by, instead, str(error)) from error
        self._pygame.display.set_caption(title)
        self._font = self._pygame.font.Font(None, TEXT_PX)

    def commands(self) -> list[str]:
        """Commands since the last call, in order; moves of the mouse are applied to the cursor."""
        found = []
        for event in self._pygame.event.get():
            command = self._command(event)
            if command:
                found.append(command)
        return found

    def _command(self, event: Any) -> str | None:
        """The command of an event; None for moves and for events without meaning here."""
        pygame = self._pygame
        if event.type == pygame.QUIT:
            return "quit"
        if event.type == pygame.MOUSEMOTION:
            self.cursor = from_mouse((event.pos[0] - self._left, event.pos[1]), self._size)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._arrows.clear()
        elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
            name = pygame.key.name(event.key)
            down = event.type == pygame.KEYDOWN
            if name in DIRECTIONS:
                (self._arrows.add if down else self._arrows.discard)(name)
            elif down:
                return self._keys.get(self._character(event, name), self._keys.get(name))
        return None

    def _character(self, event: Any, name: str) -> str:
        """The character of a key.

        A letter's case follows shift: of two quick presses of a key, pygame confuses `unicode`.
        """
        if len(name) == 1 and name.isalpha():
            return name.upper() if event.mod & self._pygame.KMOD_SHIFT else name
        return event.unicode

    def place(self, cursor: np.ndarray) -> None:
        """Put cursor and mouse at a cursor [2]."""
        self.cursor = np.clip(cursor, 0.0, 1.0)
        x, y = (self.cursor * self._size).astype(int).tolist()
        self._pygame.mouse.set_pos(x + self._left, y)
        self._pygame.event.clear(self._pygame.MOUSEMOTION)

    def move(self, seconds: float) -> None:
        """Move the cursor by the arrow keys that are held."""
        self.cursor = from_keys(self.cursor, self._arrows, seconds)

    def draw(
        self, picture: np.ndarray, lines: Sequence[str], cursor: np.ndarray | None = None
    ) -> None:
        """Show a picture, uint8 [H, W, 3], with a cursor, and the lines below it; tabs: columns."""
        pygame = self._pygame
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.fill(DARK)
        self._screen.blit(pygame.transform.scale(surface, self._size), (self._left, 0))
        if cursor is not None:
            x, y = (cursor * self._size).astype(int).tolist()
            pygame.draw.circle(self._screen, MARK, (x + self._left, y), 6, 2)
        for number, line in enumerate(lines):
            top = self._size[1] + MARGIN_PX + number * LINE_PX
            for column, cell in enumerate(line.split("\t")):
                left = MARGIN_PX + (column > 0) * NAME_PX + max(column - 1, 0) * COLUMN_PX
                self._screen.blit(self._font.render(cell, True, LIGHT), (left, top))
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        self._pygame.quit()


def check_display(wanted_by: str, instead: str = "") -> Any:
    """Pygame with its display; DiffpolicyError without either (see `Window`)."""
    pygame = _pygame(wanted_by)
    try:
        if sys.platform == "linux" and not any(name in os.environ for name in DISPLAYS):
            raise pygame.error("there is no display")
        pygame.display.init()
        # Without a screen SDL chooses, on its own, to draw where nobody looks.
        if pygame.display.get_driver() in UNSEEN and "SDL_VIDEODRIVER" not in os.environ:
            raise pygame.error("the display does not answer")
    except pygame.error as error:
        raise _unseen(pygame, wanted_by, instead, str(error)) from error
    return pygame


def _unseen(pygame: Any, wanted_by: str, instead: str, reason: str) -> DiffpolicyError:
    pygame.quit()
    return DiffpolicyError(
        f"{wanted_by} cannot open a window: {reason}; try export DISPLAY=:0 on the computer with "
        f"the screen{instead}"
    )


def _pygame(wanted_by: str) -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # SDL would copy pictures by OpenGL, which ends the process where MuJoCo renders by it, too.
    os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    try:
        import pygame
    except ImportError as error:
        raise DiffpolicyError(
            f"{wanted_by} needs pygame; install it with pip install 'diffpolicy[teleop]'"
        ) from error
    return pygame
