"""Metrics of generated clips: pure functions, and torchmetrics classes that average them."""
