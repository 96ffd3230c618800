"""Commands: compose a config, build objects, call them. The only package that uses Hydra."""
