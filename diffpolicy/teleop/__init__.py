"""Recording by a person: a window on the environment, a mouse, a keyboard."""
