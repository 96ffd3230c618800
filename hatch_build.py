"""Ships conf/ and the demo model inside the wheel; an editable install reads them in place."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = {"conf": "latentsync/conf", "experiments/demo/model": "latentsync/demo_model"}


class ShipBesideCode(BuildHookInterface):
    """Adds the folders of SHIPPED that exist to a wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version == "editable":
            return
        for source, target in SHIPPED.items():
            if (Path(self.root) / source).is_dir():
                build_data["force_include"][source] = target
