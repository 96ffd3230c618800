"""A tiny segmenter as an ONNX file, written by hand."""

import struct


def red_is_covered() -> bytes:
    """An ONNX network of one convolution that outputs the red channel."""

    def number(value: int) -> bytes:
        return bytes([value % 128 + 128]) + number(value // 128) if value > 127 else bytes([value])

    def part(field: int, content: bytes | str | int) -> bytes:
        if isinstance(content, int):
            return number(8 * field) + number(content)
        content = content.encode() if isinstance(content, str) else content
        return number(8 * field + 2) + number(len(content)) + content

    def value(name: str, channels: int) -> bytes:
        shape = b"".join(part(1, part(1, length)) for length in (1, channels, 256, 256))
        return part(1, name) + part(2, part(1, part(1, 1) + part(2, shape)))

    node = part(1, "face") + part(1, "weight") + part(2, "covered") + part(4, "Conv")
    weight = b"".join(part(1, length) for length in (1, 3, 1, 1)) + part(2, 1)
    weight += part(8, "weight") + part(9, struct.pack("<3f", 1, 0, 0))
    graph = part(1, node) + part(2, "red") + part(5, weight)
    graph += part(11, value("face", 3)) + part(12, value("covered", 1))
    return part(1, 8) + part(7, graph) + part(8, part(1, "") + part(2, 13))
