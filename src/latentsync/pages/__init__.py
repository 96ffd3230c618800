"""What all HTML pages share: one frame, one style sheet, one way to render a template.

A page is one file: styles, pictures and curves are in it, and nothing is fetched from elsewhere.
"""

from collections.abc import Mapping
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

__all__ = ["clock", "render"]


def render(package: str, template: str, values: Mapping[str, object]) -> str:
    """Render a template in the `templates` of a package, which may extend and include those here.

    Values are escaped, and a missing one is an error.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["clock"] = clock
    return environment


def clock(seconds: float) -> str:
    """12.34 => 0:12.34; hours only if there are any."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{rest / 100:05.2f}"
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}" if hours else short
