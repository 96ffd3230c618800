"""Lists of packets beside the clips of an archive, and readers that use them."""

import json

import torch
from safetensors.torch import save

from latentsync.data.members import File, bytes_of, header_of, map_tensors
from latentsync.files import FilePart
from latentsync.media.clip_reader import ClipReader, reader_named
from latentsync.media.packets import Decoders, PacketList, PacketReader, Setup

PACKETS_FOLDER = "packets"  # of the set, as it were: lists are only in archives
PACKETS_FORMAT = 1
PACKETS, EXTRADATA, SETUP = "packets", "extradata", "setup"  # tensors, metadata


def packed(packets: PacketList) -> bytes:
    """A list as a safetensors file, always the same bytes."""
    setup = packets.setup
    noted = {"size": [setup.width, setup.height], "colours": setup.colours}
    tensors = {
        PACKETS: torch.from_numpy(packets.rows),
        EXTRADATA: torch.frombuffer(bytearray(setup.extradata), dtype=torch.uint8),
    }
    # One entry, as safetensors writes several in any order.
    return save(tensors, {SETUP: json.dumps(noted)})


def packets_in(file: File) -> PacketList:
    """A list as `packed` wrote it; ValueError or KeyError if it is none."""
    tensors, noted = map_tensors(file), json.loads(header_of(file)[0][SETUP])
    width, height = noted["size"]
    matrix, levels, primaries, transfer = noted["colours"]
    setup = Setup(
        bytes(tensors[EXTRADATA].numpy()), width, height, (matrix, levels, primaries, transfer)
    )
    return PacketList(setup, tensors[PACKETS].numpy())


class ClipOpener:
    """Opens clips with a reader of `reader_named`; for `pyav` with their list of packets if there
    is one, which gives the same frames."""

    def __init__(self, reader: str) -> None:
        self.open = reader_named(reader)
        self.uses_lists = reader == "pyav"
        self.decoders = Decoders()

    def __call__(self, file: File) -> ClipReader:
        if self.uses_lists and isinstance(file, FilePart) and file.packets is not None:
            packets = packets_in(file.packets)
            return PacketReader(packets, bytes_of(file), self.decoders, name=str(file))
        return self.open(file)
