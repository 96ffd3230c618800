"""Tiny networks as ONNX files, written by hand."""


def mean_network() -> bytes:
    """An ONNX file of one node: the mean of every channel of a 112x112 image."""

    def field(number: int, content: bytes | str | int) -> bytes:
        if isinstance(content, int):
            return varint(number << 3) + varint(content)
        content = content.encode() if isinstance(content, str) else content
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    def tensor(name: str, *shape: int) -> bytes:
        sizes = b"".join(field(1, field(1, size)) for size in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))

    node = field(1, "data") + field(2, "mean") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "mean") + field(11, tensor("data", 1, 3, 112, 112))
    graph += field(12, tensor("mean", 1, 3, 1, 1))
    return field(1, 7) + field(7, graph) + field(8, field(2, 11))
