"""Window of pygame: the environment's picture, lines of text, and commands from keys and mouse."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.teleop.devices import DIRECTIONS, from_keys, from_mouse

KEYS = {  # name of the key: (command of the session, words)
    "space": ("go", "SPACE start, pause"),
    "s": ("keep", "S save"),
    "u": ("undo", "U undo"),
    "d": ("discard", "D discard"),
    "q": ("quit", "Q quit"),
}
HELP = " · ".join(words for _, words in KEYS.values())
SMALLEST_PX = 480  # shorter side of a picture that is not enlarged further
LINE_PX, MARGIN_PX, TEXT_PX = 22, 8, 18
DARK, LIGHT, MARK = (24, 26, 31), (232, 234, 237), (235, 64, 52)


class Window:
    """A window for pictures of one size; cursor [2] is moved by the mouse and by arrow keys.

    picture: the first one, uint8 [H, W, 3]. Raises DiffpolicyError without pygame or a screen.
    """

    def __init__(self, title: str, picture: np.ndarray, lines: int):
        self._pygame = _pygame()
        self.cursor, self._arrows = np.array([0.5, 0.5]), set[str]()
        height, width = picture.shape[:2]
        scale = max(1, round(SMALLEST_PX / min(height, width)))
        self._size = width * scale, height * scale
        try:
            self._pygame.display.init()
            self._pygame.font.init()
            bar = 2 * MARGIN_PX + LINE_PX * lines
            self._screen = self._pygame.display.set_mode((self._size[0], self._size[1] + bar))
        except self._pygame.error as error:
            self._pygame.quit()
            raise DiffpolicyError(f"--teleop cannot open a window: {error}") from error
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
            self.cursor = from_mouse(event.pos, self._size)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._arrows.clear()
        elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
            name = pygame.key.name(event.key)
            down = event.type == pygame.KEYDOWN
            if name in DIRECTIONS:
                (self._arrows.add if down else self._arrows.discard)(name)
            elif down and name in KEYS:
                return KEYS[name][0]
        return None

    def place(self, cursor: np.ndarray) -> None:
        """Put cursor and mouse at a cursor [2]."""
        self.cursor = np.clip(cursor, 0.0, 1.0)
        self._pygame.mouse.set_pos(*(self.cursor * self._size).astype(int).tolist())
        self._pygame.event.clear(self._pygame.MOUSEMOTION)

    def move(self, seconds: float) -> None:
        """Move the cursor by the arrow keys that are held."""
        self.cursor = from_keys(self.cursor, self._arrows, seconds)

    def draw(self, picture: np.ndarray, lines: Sequence[str]) -> None:
        """Show a picture, uint8 [H, W, 3], with the cursor, and the lines below it."""
        pygame = self._pygame
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.fill(DARK)
        self._screen.blit(pygame.transform.scale(surface, self._size), (0, 0))
        place = (self.cursor * self._size).astype(int).tolist()
        pygame.draw.circle(self._screen, MARK, place, 6, 2)
        for number, line in enumerate(lines):
            text = self._font.render(line, True, LIGHT)
            self._screen.blit(text, (MARGIN_PX, self._size[1] + MARGIN_PX + number * LINE_PX))
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        self._pygame.quit()


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise DiffpolicyError(
            "--teleop needs pygame; install it with pip install 'diffpolicy[teleop]'"
        ) from error
    return pygame
