"""Frames <-> aligned faces: detection, tracking, alignment, masks, pasting."""

from latentsync.faces.align import (
    ALIGNERS,
    OfficialAligner,
    SmoothAligner,
    align,
    aligned_box,
)
from latentsync.faces.detectors.base import Face, FaceDetector, FixedDetector, largest, three_points
from latentsync.faces.detectors.facemesh import MeshDetector
from latentsync.faces.detectors.yunet import YuNetDetector, default_detector
from latentsync.faces.legacy import LegacyAligner
from latentsync.faces.mask import load_mask, mask_names, mouth_shown, paint_weights
from latentsync.faces.placement import Placement, crop_template, similarity_from_points
from latentsync.faces.restore import paste, pasted_box, restore
from latentsync.faces.shape import MouthShape, mouth_shape
from latentsync.faces.tracking.single import Tracker, track

__all__ = [
    "ALIGNERS",
    "Face",
    "FaceDetector",
    "FixedDetector",
    "LegacyAligner",
    "MeshDetector",
    "MouthShape",
    "OfficialAligner",
    "Placement",
    "SmoothAligner",
    "Tracker",
    "YuNetDetector",
    "align",
    "aligned_box",
    "crop_template",
    "default_detector",
    "largest",
    "load_mask",
    "mask_names",
    "mouth_shape",
    "mouth_shown",
    "paint_weights",
    "paste",
    "pasted_box",
    "restore",
    "similarity_from_points",
    "three_points",
    "track",
]
