"""Finders of faces and their landmarks in one picture."""
