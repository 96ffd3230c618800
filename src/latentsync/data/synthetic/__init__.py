"""Synthetic talking faces with known ground truth for every frame.

One track of mouth shapes drives both picture and sound, so the sound determines the mouth. Nothing
is downloaded, and everything is determined by a seed.
"""

from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import TRACES, VISEMES, truth_of, viseme_track
from latentsync.data.synthetic.world import draw_world, faces_of, read_truth, render_clip

__all__ = [
    "TRACES",
    "VISEMES",
    "Speaker",
    "draw_world",
    "faces_of",
    "read_truth",
    "render_clip",
    "truth_of",
    "viseme_track",
]
