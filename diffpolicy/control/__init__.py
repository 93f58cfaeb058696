"""Receding-horizon control: the controller, latency, and episodes on three clocks."""
