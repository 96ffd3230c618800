"""The metrics of conf/metrics, with networks of random weights where they need files."""

from copy import deepcopy
from pathlib import Path

import yaml
from hydra.utils import instantiate
from torchmetrics import Metric

CONF = Path(__file__).parents[2] / "conf" / "metrics"
FILES = sorted(CONF.glob("*.yaml"))
LISTED = {
    f"{path.stem}.{name}": node
    for path in FILES
    for name, node in yaml.safe_load(path.read_text(encoding="utf-8")).items()
}


def metric_of(name: str, files: dict[str, str]) -> Metric:
    """A listed metric with the files of `networks.files_in`."""
    node = deepcopy(LISTED[name])
    if "backbone" in node:
        node |= {"backbone": files["vgg"], "stride": 16}
    if "extractor" in node:
        node["extractor"] |= {"path": files["extractor"], "side": 32}
        node["extractor"].pop("arguments", None)
    if "network" in node:
        node["network"]["path"] = files["av_sync" if name.endswith("av_sync") else "lip_score"]
    if node.get("extractor", {}).get("num_frames"):
        node["extractor"]["num_frames"] = 4
    return instantiate(node, _convert_="all")
