"""The type checker of every function in tests: beartype, where an int is also a float, and without
`Self`, which it cannot check on methods that jaxtyping's import hook decorates one by one."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object}), is_pep484_tower=True))
