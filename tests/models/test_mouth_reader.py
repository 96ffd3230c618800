"""MouthReader: size, folder, and region it looks at."""

import torch

from latentsync.models.mouth_reader import MouthReader, mouth_box
from latentsync.models.serialization import load_network, save_network


def test_it_is_small():
    size = sum(weight.numel() for weight in MouthReader().parameters())
    assert 100_000 < size < 300_000


def test_a_saved_folder_reads_the_same(tmp_path):
    torch.manual_seed(0)
    reader = MouthReader(resolution=64, block_out_channels=(8, 16), dropout=0.0).eval()
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    save_network(reader, tmp_path)
    again = load_network(MouthReader, tmp_path)
    assert again.config.resolution == 64
    torch.testing.assert_close(again(faces), reader(faces))


def test_only_the_mouth_counts():
    torch.manual_seed(0)
    reader = MouthReader().eval()
    faces = torch.rand(2, 3, 128, 128) * 2 - 1
    other = torch.rand(2, 3, 128, 128) * 2 - 1
    mouth_box(other).copy_(mouth_box(faces))
    torch.testing.assert_close(reader(other), reader(faces))
    assert mouth_box(faces).shape[-2:] == (48, 96)


def test_faces_of_another_size_are_resized_first():
    torch.manual_seed(0)
    reader = MouthReader().eval()
    small = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=(128, 128))
    large = torch.nn.functional.interpolate(small, size=(256, 256), mode="nearest")
    torch.testing.assert_close(reader(large), reader(small), atol=0.05, rtol=0)
