"""Receding-horizon control: controller, late chunks, latency, and episodes on three clocks."""
