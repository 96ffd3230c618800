"""Commands: compose a config, build, call. The only package that knows Hydra."""
